import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from edgemin_hf.distillation import Predictions
from edgemin_hf.tasks import MultiLabel, Regression, Reranking, TextClassification

LABELS = {"card": 0, "loan": 1, "other": 2}
CLASSES = TextClassification("train.csv", "test.csv")
SETS = MultiLabel("train.csv", "test.csv")
PAIRS = TextClassification("train.csv", "test.csv", text_pair_column="second")
TEXTS = Dataset.from_dict({"text": ["b", " a "]})


def predictions(folder, rows, task=CLASSES, labels=LABELS):
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Predictions(folder / "answers.jsonl", task, labels)


def answers(**columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_the_divergence_from_labels_is_the_cross_entropy_with_them(tmp_path, temperature):
    found = predictions(tmp_path, answers(text=["a", "b"], label=["other", "card"])).logits(TEXTS)
    student = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    logs = F.log_softmax(student.detach() / temperature, -1).double().numpy()
    loss = CLASSES.soft_loss(student, found, temperature)
    np.testing.assert_allclose(loss.item(), -(temperature**2) * (logs[0, 0] + logs[1, 2]) / 2, rtol=1e-5)
    loss.backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_label_sets_are_certain_answers_each(tmp_path, temperature):
    rows = answers(text=["a", "b"], label=[["other", "card"], []])
    found = predictions(tmp_path, rows, SETS).logits(TEXTS)
    truth = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    assert torch.equal(found.sigmoid(), truth)
    student = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = temperature**2 * F.binary_cross_entropy_with_logits(student / temperature, truth)
    loss = SETS.soft_loss(student, found, temperature)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.grad.isfinite().all()


def test_scores_are_a_regressions_own(tmp_path):
    task = Regression("train.csv", "test.csv")
    found = predictions(tmp_path, answers(text=["a", "b"], label=[1.5, -2.0]), task, {"label": 0})
    assert found.logits(TEXTS).tolist() == [[-2.0], [1.5]]


LISTS = [[0.5, 0.25, 0.25], [0.0, 0.1, 0.9]]
BY_NAME = [dict(zip(("loan", "other", "card"), (b, c, a), strict=True)) for a, b, c in LISTS]


@pytest.mark.parametrize("rows", [LISTS, BY_NAME], ids=["a list", "by name"])
def test_probabilities_are_what_the_logits_say(tmp_path, rows):
    found = predictions(tmp_path, answers(text=["a", "b"], probabilities=rows)).logits(TEXTS)
    np.testing.assert_allclose(found.softmax(-1), LISTS[::-1], rtol=1e-6)
    of_sets = predictions(tmp_path, answers(text=["a", "b"], probabilities=rows), SETS).logits(TEXTS)
    np.testing.assert_allclose(of_sets.sigmoid(), LISTS[::-1], rtol=1e-6)


@pytest.mark.parametrize("name", ["answers.jsonl", "answers.parquet", "answers.tsv"])
def test_logits_are_taken_as_they_are_and_rows_are_found_by_their_texts(tmp_path, name):
    logits = [[9, 9, 9], [1, 2, 3], [4.5, 5, 6], [1, 2, 3]]
    rows = answers(text=["x", "a ", "b", "a"], second=["1", "1", "2", "1"], logits=logits)
    if name.endswith("parquet"):
        Dataset.from_list(rows).to_parquet(tmp_path / name)
    elif name.endswith("tsv"):
        lines = ["\t".join([row["text"], row["second"], json.dumps(row["logits"])]) for row in rows]
        (tmp_path / name).write_text("\n".join(["text\tsecond\tlogits", *lines]))
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    found = Predictions(tmp_path / name, PAIRS, LABELS)
    asked = Dataset.from_dict({"text": ["b", "a"], "second": ["2", "1"]})
    assert found.logits(asked).tolist() == [[4.5, 5, 6], [1, 2, 3]]


WRONG = {
    "no text": (answers(words=["a"], label=["card"]), "column 'text' of .*; allowed: words, label"),
    "no answers": (answers(text=["a"], answer=["card"]), "column 'label' of .*; allowed: text, answer"),
    "an unknown label": (answers(text=["a"], label=["cart"]), "label_column: 'cart' in the data; allowed: card, loan"),
    "both": (answers(text=["a"], logits=[LISTS[0]], probabilities=[LISTS[0]]), "with columns logits and probabil"),
    "too few": (answers(text=["a"], logits=[[1, 2]]), r"\[1, 2\] in column 'logits', row 1 of .*; expected: 3 number"),
    "another name": (answers(text=["a"], logits=[{"card": 1, "loan": 2, "x": 3}]), "row 1 of .* by their names: "),
    "a missing name": (answers(text=["a", "b"], logits=[BY_NAME[0], {"card": 1}]), "{'card': 1} in column 'logits'"),
    "one number": (answers(text=["a"], logits=[0.5]), "0.5 in column 'logits', row 1"),
    "a missing number": (answers(text=["a"], logits=[[1.0, None, 2.0]]), "row 1 of .*; expected: 3 number"),
    "no probabilities": (answers(text=["a"], probabilities=[[3.0, 1.0, -1.0]]), "row 1 of .*; expected: numbers from"),
    "no sum of 1": (answers(text=["a"], probabilities=[[0.5, 0.1, 0.1]]), "row 1 of .*; expected: .*of sum 1 .or"),
    "two answers": (answers(text=["a", "a"], label=["card", "loan"]), "'a' in rows 1 and 2 of .*, with two pre"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_odd_tables_are_one_line(tmp_path, case):
    rows, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        predictions(tmp_path, rows)
    assert "\n" not in str(error.value)


def test_probabilities_of_scores_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"column 'probabilities' of .* for regression; allowed: its scores"):
        predictions(tmp_path, answers(text=["a"], probabilities=[[0.5]]), Regression("a", "b"), {"label": 0})


def test_a_reranker_learns_logits_alone(tmp_path):
    ranks, rows = Reranking("a", "b", text_pair_column="second"), {"query": ["a"], "second": ["b"]}
    found = predictions(tmp_path, answers(**rows, logits=[[2.5]]), ranks, {"label": 0})
    assert found.logits(Dataset.from_dict(rows)).tolist() == [[2.5]]
    with pytest.raises(ValueError, match=r"column 'probabilities' of .* for reranking; allowed: logits"):
        predictions(tmp_path, answers(**rows, probabilities=[[0.5]]), ranks, {"label": 0})
    with pytest.raises(ValueError, match=r"answers.jsonl, without logits; allowed: a column of these \(labels are"):
        predictions(tmp_path, answers(**rows, label=[1]), ranks, {"label": 0})


def test_texts_without_a_prediction_are_counted_and_one_is_shown(tmp_path):
    found = predictions(tmp_path, answers(text=["a"], label=["card"]))
    asked = Dataset.from_dict({"text": ["a", "c", "d" * 200]})
    message = f"{tmp_path / 'answers.jsonl'}, which predicts nothing for 2 of 3 texts, such as 'c'; expected: one predi"
    with pytest.raises(ValueError, match=re.escape(message)):
        found.check(asked)
