"""The scripts in recipes/data, and in recipes' heads, which make what recipes read of what others published."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import datasets
from datasets import ClassLabel, Dataset, Features, Value

from edgemin_hf.data.tables import read_table

DATA = Path(__file__).parents[2] / "recipes/data"


def run(script, place, monkeypatch, *arguments):
    """Run a script as if it lay in a folder."""
    shutil.copy(DATA / script, place / script)
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(place / script), run_name="__main__")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_requests_are_joined_with_the_intents_of_all(tmp_path, monkeypatch):
    shutil.copytree(DATA / "clinc150", tmp_path / "clinc150")
    run("mix_clinc150.py", tmp_path, monkeypatch)
    rows = {split: lines(tmp_path / f"clinc150_mix/{split}.jsonl") for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in rows.items()} == {"train": 12_000, "dev": 1_500, "test": 3_000}
    known = {}
    for line in (DATA / "clinc150/test.tsv").read_text().splitlines()[1:]:
        sentence, label = line.split("\t")[:2]
        known.setdefault(label, set()).add(sentence)
    assert {label for row in rows["test"] for label in row["labels"]} == set(known) - {"oos"}
    for row in rows["test"]:
        assert all(any(sentence in row["sentence"] for sentence in known[label]) for label in row["labels"])
    counts = [len(row["labels"]) for row in rows["train"]]
    assert 0.27 < counts.count(1) / len(counts) < 0.34  # two requests may have one intent


def test_questions_are_made_of_sentences_and_stand_beside_other_contexts(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "squad_small"
    folder.mkdir()
    told = "In the year {} the old Queen Anna of Denmark built a castle near Berlin."
    contexts = [told.format(year) for year in (1601, 1602)]
    asked = [{"title": "Castles", "context": text, "question": f"Who built it in {text[12:16]}?"} for text in contexts]
    (folder / "train_a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    text = tmp_path / "text.txt"
    text.write_text(("Later the Emperor Karl came to see the 12 towers of Prague again. " * 12).strip() + "\n\n")
    run("make_questions.py", tmp_path, monkeypatch, text)
    rows = lines(folder / "more.jsonl")
    assert f"{len(rows):,} questions" in capsys.readouterr().out
    crossed, made = rows[:2], rows[2:]
    assert [(row["context"], row["question"]) for row in crossed] == [
        (contexts[1], asked[0]["question"]), (contexts[0], asked[1]["question"]),
    ]  # fmt: skip
    assert {row["context"] for row in made} > set(contexts)
    for row in made:
        question = row["question"]
        assert question.endswith("?")
        assert any(word in question.lower() for word in ("who or what", "how many", "what"))


def test_the_head_of_nli_writes_labels_by_name_and_texts_as_they_are(tmp_path, monkeypatch):
    columns = {"mnli": ("premise", "hypothesis"), "qnli": ("question", "sentence")}

    def served(_, name, split):
        first, second = columns.get(name, ("sentence1", "sentence2"))
        label = Value("float32") if name == "stsb" else ClassLabel(names=["entailment", "neutral", "contradiction"])
        features = Features({first: Value("string"), second: Value("string"), "label": label})
        texts = [f'{name} said "{number}"' for number in range(10)]
        return Dataset.from_dict({first: texts, second: texts[::-1], "label": [0, 1] * 5}, features=features)

    head = (DATA.parent / "nli.yaml").read_text().split("name:")[0]
    monkeypatch.setattr(datasets, "load_dataset", served)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall(r"^#     (.*)", head, re.MULTILINE)), {})
    train, test, pairs = (
        read_table(tmp_path / f"recipes/data/mnli/{name}.jsonl") for name in ("train", "test", "pairs")
    )
    assert (len(train), len(test), len(pairs)) == (8, 2, 48)
    assert {*train["label"], *test["label"]} == {"entailment", "neutral"}
    assert {*train["sentence1"], *test["sentence1"]} == {f'mnli said "{number}"' for number in range(10)}
    assert pairs.column_names == ["sentence1", "sentence2"]
