import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import f1_score, recall_score
from transformers import AutoConfig

from edgemin_hf.benchmark.runners import OnnxRunner, PyTorchRunner
from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.plan import make_plan
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.known import TASKS, task_type
from edgemin_hf.tasks.text_classification import TextClassification
from tests.helpers.recipes import only, put
from tests.helpers.tasks import (
    assert_every_stage_speaks_of,
    assert_measured,
    pair_recipe,
    read_json,
    run_snippets,
    write_all_pairs,
    write_pairs,
)

PAIRS = {
    "metric": ["f1", {"name": "f1", "average": "macro"}, "matthews_correlation"],
    "validation_file": "validation.tsv",
}
SCORES = {"metric": "spearmanr", "label_column": "score"}


@pytest.fixture(scope="module")
def root(workplace, tmp_path_factory):
    return write_all_pairs(tmp_path_factory.mktemp("pairs"), workplace)


@pytest.fixture(scope="module")
def run(root):
    longer = [put("finetune.max_steps", 100), put("task_distill.max_steps", 60)]
    assert main(["run", str(pair_recipe(root, PAIRS, *longer, put("report.repo_id", str(root / "run/artefact"))))]) == 0
    return root / "run"


@pytest.mark.long
def test_every_stage_speaks_of_the_metric(run):
    assert_every_stage_speaks_of("f1", run, 40)


@pytest.mark.long
def test_what_is_measured_are_the_predictions(run, root):
    lines = [line.split("\t") for line in (root / "test.tsv").read_text().splitlines()[1:]]
    assert_measured(run, np.array([int(line[2]) for line in lines]), f1_score)


@pytest.mark.long
def test_further_metrics_and_each_label_stand_in_record_and_report(run, root):
    labels = [int(line.split("\t")[2]) for line in (root / "test.tsv").read_text().splitlines()[1:]]
    predictions = load_file(run / "evaluate/predictions.safetensors")
    for name, found in read_json(run / "evaluate/results.json").items():
        assert [other["metric"] for other in found["others"]] == ["f1_macro", "matthews_correlation"]
        assert found["others"][0]["value"] == pytest.approx(f1_score(labels, predictions[name], average="macro"))
        assert [row["name"] for row in found["per_class"]] == ["0", "1"]
        recalls = recall_score(labels, predictions[name], average=None)
        assert [row["recall"] for row in found["per_class"]] == pytest.approx(list(recalls))
    report = (run / "artefact/report.html").read_text()
    assert "Matthews correlation ×100" in report
    assert "Label by label" in report
    record = read_json(run / "stages/task_distill.json")
    assert record["metric"] == "f1"


@pytest.mark.long
def test_the_checkpoint_says_what_its_output_is(run):
    for folder in ("teacher", "artefact"):
        config = AutoConfig.from_pretrained(run / folder)
        assert (config.problem_type, config.id2label) == ("single_label_classification", {0: "0", 1: "1"})


@pytest.mark.long
def test_the_snippets_of_the_card_take_a_pair_and_agree(run, monkeypatch):
    card = (run / "artefact/README.md").read_text()
    assert len(re.findall(r'"text": ".*", "text_pair": "|predict\(\(".*", "', card)) == 4
    answers = run_snippets(card, monkeypatch)
    assert re.findall("'label': '([01])'", "".join(answers)) == [answers[1].strip()] * 2


@pytest.mark.long
def test_pairs_of_a_file_are_benchmarked_as_pairs(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "texts").write_text("where is my card\tmy card is lost\nsend money\n")
    lengths = []
    monkeypatch.setattr(OnnxRunner, "prepare", lambda self, inputs: lengths.append(inputs["input_ids"].shape[1]))
    monkeypatch.setattr(PyTorchRunner, "run", lambda self, prepared: None)
    monkeypatch.setattr(OnnxRunner, "run", lambda self, prepared: None)
    assert main(["benchmark", str(run / "artefact"), "--texts", str(tmp_path / "texts"), "--threads", "1"]) == 0
    assert lengths == [4 + 4 + 3, 2 + 2] * 2
    assert "accuracy" not in capsys.readouterr().out


@pytest.mark.long
def test_a_teacher_that_is_not_fine_tuned_must_be_one_for_the_task(root, run, tmp_path, capsys):
    shutil.copytree(run / "teacher", tmp_path / "teacher")
    config = read_json(tmp_path / "teacher/config.json") | {"problem_type": None}
    (tmp_path / "teacher/config.json").write_text(json.dumps(config))
    changes = [only("task_distill"), put("teacher.model", str(tmp_path / "teacher"))]
    changes.append(put("output_dir", str(tmp_path / "out")))
    for other in (SCORES, {"type": "multi_label", "label_columns": ["label"]}):
        assert main(["run", str(pair_recipe(root, other, *changes, run="other"))]) == 2
        error = capsys.readouterr().err
        assert re.search(r"teacher\.model: .* label\(s\) and problem_type None; allowed for", error), error
    recipe, settings = load_recipe(pair_recipe(root, PAIRS, *changes, run="other"))
    make_plan(recipe, root)
    student = recipe.stages[0].student(Context(recipe, settings, root, tmp_path / "out"))
    assert student.config.problem_type == recipe.task.problem_type


def test_rows_are_tokenised_as_pairs_from_the_tables_that_are_named(root, tokenizer):
    columns = {"text_column": "sentence1", "text_pair_column": "sentence2", "max_length": 12}
    task = TextClassification("train.tsv", "test.tsv", "validation.tsv", **columns)
    task.check(root)
    train, validation = task.train_and_validation(root, tokenizer, {"0": 0, "1": 1}, seed=0)
    assert (len(train), len(validation)) == (160, 32)
    lines = [line.split("\t") for line in (root / "validation.tsv").read_text().splitlines()[1:]]
    assert task.texts(root, 3, seed=0) == [(first, second) for first, second, *_ in lines[:3]]
    for row, (first, second, label, _) in zip(validation, lines, strict=True):
        assert row == {**tokenizer(first, second, truncation=True, max_length=12), "labels": int(label)}
        assert len(row["input_ids"]) <= 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "bleu"}, "metric: bleu; allowed: accuracy, f1, .*Hub id"),
        ({"metric": "f1", "label_column": "score"}, r"metric: f1 with 3 label\(s\); allowed: .*two labels"),
        ({"metric": "spearmanr", "label_column": "sentence2"}, "train_file: '.*' in column .*, row 1 .*: a number"),
        ({"text_pair_column": "sentence3"}, "train_file: column 'sentence3' of .*; allowed: sentence1"),
        ({"text_pair_column": "sentence2", "max_length": 5}, "max_length: 5; allowed: 6 or more"),
        (
            {"train_file": "lists.jsonl"},
            r"train_file: \['a'\] in column 'label', row 1 .*; expected: one label, or type: m",
        ),
        ({"validation_file": "no.tsv"}, r"validation_file: .*no\.tsv, which is no file"),
        ({"validation_file": "odd.tsv"}, "label_column: 'maybe' in the data; allowed: 0, 1"),
    ],
)
def test_a_task_that_can_not_be_is_refused(root, settings, message):
    write_pairs(root / "odd.tsv", 8, 0)
    (root / "odd.tsv").write_text((root / "odd.tsv").read_text().replace("\t1\t", "\tmaybe\t"))
    (root / "lists.jsonl").write_text('{"sentence1": "my card", "label": ["a"]}\n')
    with pytest.raises(ValueError, match=message):
        TASKS[task_type(settings)](
            **{"train_file": "train.tsv", "test_file": "test.tsv", "text_column": "sentence1", **settings}
        ).check(root)


def test_texts_without_labels_come_from_lines_and_tables(tmp_path, tokenizer):
    (tmp_path / "lines.txt").write_text("my card\n\n where is it \n")
    (tmp_path / "table.csv").write_text("id,text\n1,7\n")
    task = TextClassification("train.csv", "test.csv", unlabelled_files=["lines.txt", "table.csv"])
    table = task.unlabelled_table(tmp_path)
    assert table["text"] == ["my card", " where is it ", "7"]
    rows = task.tokenized(table, tokenizer, {"a": 0, "b": 1}, with_labels=False)
    assert rows["labels"] == [-100] * 3


WITHOUT = {
    "no such lines": ("no.txt", None, "no.txt, which is no file"),
    "no lines": ("empty.txt", None, "empty.txt, which is empty"),
    "lines for pairs": ("lines.txt", "second", "lines.txt; allowed: a file that ends with .tsv, .csv"),
    "no column": ("table.csv", None, "column 'text' of .*table.csv; allowed: words"),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_odd_texts_without_labels(tmp_path, case):
    file, second, message = WITHOUT[case]
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "lines.txt").write_text("my card\n")
    (tmp_path / "table.csv").write_text("words\nmy card\n")
    task = TextClassification("train.csv", "test.csv", text_pair_column=second, unlabelled_files=[file])
    with pytest.raises(ValueError, match=message):
        task.unlabelled_table(tmp_path)
