import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from edgemin_hf.data import sources
from edgemin_hf.data.sources import files_of, notes_on_source, one_file, split_file
from edgemin_hf.data.tables import read_table
from edgemin_hf.tasks import TASKS, TextClassification
from tests.helpers.hub_server import HubServer

NAMES = ["no", "yes", "maybe"]  # not in the order of the alphabet
FEATURES = Features({"text": Value("string"), "label": ClassLabel(names=NAMES)})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE", tmp_path / "cache")


def rows(count, first=0):
    return Dataset.from_dict(
        {"text": [f"text {first + i}" for i in range(count)], "label": [i % 3 for i in range(count)]}, FEATURES
    )


@pytest.fixture
def folder(tmp_path):
    """A dataset in a folder: train, validation, and a test split of which two rows have no label."""
    place = tmp_path / "data set"
    (place / "data").mkdir(parents=True)
    rows(12).to_parquet(place / "data/train-00000-of-00002.parquet")
    rows(9, 100).to_parquet(place / "data/train-00001-of-00002.parquet")
    rows(6, 200).to_parquet(place / "data/validation-00000-of-00001.parquet")
    columns = {"text": ["a", "b", "c", "d"], "label": [2, -1, 0, -1]}
    Dataset.from_dict(columns, FEATURES).to_parquet(place / "data/test-00000-of-00001.parquet")
    return place


def write(path, *lines):
    path.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return path


def test_a_pattern_and_a_list_name_several_files(tmp_path):
    for name in ("b.tsv", "a.tsv", "c.tsv"):
        write(tmp_path / name, f"of {name}\tx")
    assert [path.name for path in files_of(tmp_path, "?.tsv")] == ["a.tsv", "b.tsv", "c.tsv"]
    assert [path.name for path in files_of(tmp_path, ["c.tsv", "[ab].tsv"])] == ["c.tsv", "a.tsv", "b.tsv"]
    write(tmp_path / "[1].tsv", "x\ty")
    assert files_of(tmp_path, "[1].tsv") == [tmp_path / "[1].tsv"]  # a name before it is a pattern
    union = one_file(files_of(tmp_path, ["b.tsv", "a.tsv"]))
    assert read_table(union)["text"][:] == ["of b.tsv", "of a.tsv"]
    assert one_file(files_of(tmp_path, ["b.tsv", "a.tsv"])) == union
    write(tmp_path / "b.tsv", "another\tx")
    assert read_table(one_file(files_of(tmp_path, ["b.tsv", "a.tsv"])))["text"][0] == "another"
    assert one_file([tmp_path / "a.tsv"]) == tmp_path / "a.tsv"


def test_sentences_of_several_files_are_kept_apart(tmp_path):
    for name in ("a.conll", "b.conll"):
        (tmp_path / name).write_text("word O\nnext B-X")
    joined = one_file([tmp_path / "a.conll", tmp_path / "b.conll"])
    assert joined.suffix == ".conll"
    assert joined.read_text() == "word O\nnext B-X\n\nword O\nnext B-X"


def test_a_task_reads_several_files_as_one_table(tmp_path):
    for number, name in enumerate(("a", "b")):
        write(tmp_path / f"train-{name}.tsv", *(f"text {number} {i}\t{'xy'[i % 2]}" for i in range(10)))
    write(tmp_path / "test.tsv", "one\tx", "two\ty")
    task = TextClassification("train-*.tsv", ["test.tsv"], validation_share=0.2)
    assert "2 labels" in task.check(tmp_path)[0]
    train, validation = task.tables(tmp_path, seed=0)
    assert (len(train), len(validation)) == (16, 4)
    assert len(task.table(tmp_path, "test")) == 2


def test_a_folder_of_a_dataset_keeps_names_order_and_splits(folder, tmp_path):
    task = TextClassification(dataset=folder.name, validation_split="validation")
    notes = task.check(tmp_path)
    assert notes[0] == "3 labels, by number: 0 = no, 1 = yes, 2 = maybe"
    assert "test_split: 2 of 4 rows without a label left out" in notes
    assert task.labels(tmp_path) == NAMES
    train, validation = task.tables(tmp_path, seed=0)
    assert (len(train), len(validation), task.holds_out) == (21, 6, False)
    test = task.table(tmp_path, "test")
    assert task.encoded(test, {"maybe": 0, "yes": 1, "no": 2}) == [0, 2]
    some = TextClassification(dataset=folder.name, train_split="train[:9]", test_split="validation")
    assert len(some.tables(tmp_path, seed=0)[0]) == 8
    assert some.holds_out


def test_what_a_folder_holds_counts_and_not_where_it_lies(folder, tmp_path):
    path = split_file(tmp_path, folder.name, None, "train", None, "label")
    moved = folder.rename(tmp_path / "elsewhere")
    assert split_file(tmp_path, "elsewhere", None, "train", None, "label").parent == path.parent
    rows(3).to_parquet(moved / "data/train-00000-of-00002.parquet")
    changed = split_file(tmp_path, "elsewhere", None, "train", None, "label")
    assert len(read_table(changed)) == 12


FILES = {"train_file": "train.tsv", "test_file": "test.tsv"}
WRONG = {
    "both": ({"dataset": "me/data", **FILES}, "dataset: me/data beside train_file: train.tsv; allowed: one of the two"),
    "neither": ({}, "train_file: missing; expected: a file, or a dataset"),
    "no test file": ({"train_file": "a.tsv"}, "test_file: missing; expected: a file, or a dataset"),
    "an empty list": ({**FILES, "train_file": []}, "train_file: missing; expected: a file, or a dataset"),
    "no validation file": (
        {**FILES, "validation_file": ""},
        "validation_file: missing; expected: a file, or a dataset",
    ),
    "a split of files": ({**FILES, "test_split": "dev"}, "test_split: dev beside train_file; allowed: beside dataset"),
    "a revision": ({**FILES, "revision": "main"}, "revision: main beside train_file; allowed: beside dataset alone"),
}


@pytest.mark.parametrize(("settings", "message"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("kind", ["text_classification", "token_classification"])
def test_where_rows_come_from_is_said_once(kind, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        TASKS[kind](**settings)


def test_a_mistake_in_a_source_is_one_line_with_the_settings_name(folder, tmp_path):
    write(tmp_path / "train.tsv", "a\tx", "b\ty")
    (tmp_path / "other.tsv").write_text("text\tlabel\tmore\nc\tx\tz\n")
    write(tmp_path / "broken.tsv", "a\tx", "\ty\tz")
    for settings, message in (
        ({"dataset": folder.name, "validation_split": "dev"},
         "validation_split: dev of .*, which has no such split; allowed: train, validation, test$"),
        ({"dataset": folder.name, "text_column": "body"}, "train_split: column 'body' of .*; allowed: text, label$"),
        ({"dataset": folder.name, "dataset_config": "x"}, "train_split: .*, which can't be read .*; allowed: a"),
        ({"dataset": folder.name, "test_split": "train"}, "test_split: .*, whose texts are those of train_split; "),
        ({"train_file": "no/*.tsv", "test_file": "train.tsv"}, "train_file: no/[*].tsv, which matches no file; "),
        ({"train_file": ["train.tsv", "*.tsv"], "test_file": "a.tsv"}, "train_file: .*train.tsv, which is named twice"),
        ({"train_file": ["train.tsv", "other.tsv"], "test_file": "a.tsv"},
         "train_file: columns text, label, more of .*other.tsv; expected: those of train.tsv: text, label$"),
        ({"train_file": ["train.tsv", "broken.tsv"], "test_file": "a.tsv"}, "train_file: .*broken.tsv"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{message}") as error:
            TextClassification(**settings).check(tmp_path)
        assert "\n" not in str(error.value)


def test_a_split_without_any_label_is_told(tmp_path):
    (tmp_path / "data").mkdir()
    columns = {"text": ["a", "b"], "label": [-1, -1]}
    Dataset.from_dict(columns, FEATURES).to_parquet(tmp_path / "data/test.parquet")
    with pytest.raises(
        ValueError, match=r"test of data, where no row has a label \(-1\); expected: a split with labels"
    ):
        split_file(tmp_path, "data", None, "test", None, "label")


HUB = """
import json, sys
from pathlib import Path
from edgemin_hf.data.sources import notes_on_source
from edgemin_hf.tasks import TextClassification
answers = []
for revision in json.loads(sys.argv[1]):
    split = "train"
    if revision and "[" in revision:
        split, revision = revision, None
    task = TextClassification(
        dataset="org/data", train_split=split, validation_split="validation", revision=revision
    )
    try:
        path = task.path(Path(), "train")
        answers.append([len(task.table(Path(), "train")), task.labels(Path()), *notes_on_source(path)])
    except ValueError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def test_a_dataset_of_the_hub_is_read_once_a_commit_and_without_the_network_afterwards(folder, tmp_path):
    last = "data/train-00002-of-00002.parquet"
    rows(3, 300).to_parquet(folder / last)
    with HubServer("hf_" + "a" * 34) as hub:
        repo = hub.seed("org/data", folder)

        def read(*revisions, **env):
            inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
            settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*",
                        "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}  # fmt: skip
            command = [sys.executable, "-c", HUB, json.dumps(revisions)]
            done = subprocess.run(
                command, env={**inherited, **settings, **env}, capture_output=True, text=True, timeout=90
            )
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(done.stdout)

        found = [24, NAMES, f"org/data at commit {repo.sha}"]
        assert read("train[:5]") == [[5, *found[1:]]]
        assert not [request for request in hub.requests if request.startswith("GET") and request.endswith(last)]
        assert read("trial[:5]") == ["trial[:5] of org/data, which has no such split; allowed: train, validation, test"]
        assert read(None) == [found]
        nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
        same, by_commit, unknown = read(None, repo.sha, "v2", **nowhere)
        assert same == by_commit == found
        assert unknown.startswith("org/data, which can't be read")
    assert notes_on_source(folder / "data/train-00000-of-00002.parquet") == []


def test_brackets_of_the_folder_are_no_pattern(tmp_path):
    root = tmp_path / "run [1]"
    root.mkdir()
    (root / "a.csv").touch()
    assert files_of(root, "*.csv") == [root / "a.csv"]


def test_joined_sentences_have_no_mark_between_them_and_one_ending(tmp_path):
    for name in ("a.conll", "b.conll", "c.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbfcard O\n")
    joined = one_file([tmp_path / "a.conll", tmp_path / "b.conll"])
    assert joined.read_bytes() == b"card O\n\n\ncard O\n"
    with pytest.raises(ValueError, match=r"c\.txt beside a\.conll; expected: files of one ending"):
        one_file([tmp_path / "a.conll", tmp_path / "c.txt"])


def test_several_compressed_files_of_text_become_one_that_is_not(tmp_path):
    paths = [tmp_path / f"{name}.txt.zst" for name in "ab"]
    for path in paths:
        with pa.output_stream(path) as file:  # compressed by its ending
            file.write(f"my card {path.name[0]}".encode())
    found = one_file(paths)
    assert found.name == "a-and-1-more.txt"
    assert found.read_text() == "my card a\n\nmy card b"
