"""What the stage `evaluate` refuses to tell, before anything runs."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgemin_hf.benchmark.measure import ModelFile
from edgemin_hf.recipe.analysis import Models, analyse, check_slices
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks import Reranking
from tests.helpers.recipes import write_recipe


@pytest.fixture
def context(place):
    (place / "test.tsv").unlink()
    rows = [f"where is my card {number}\tcard_problem\tsouth\t{number}" for number in range(60)]
    (place / "test.tsv").write_text("\n".join(["text\tlabel\tdialect\tnumber", *rows]) + "\n")
    return Context(*load_recipe(write_recipe(place)), place, place / "run")


@pytest.mark.parametrize(("by", "expected"), [
    (["dialekt"], "slices: dialekt; allowed: a column of task.test_file: text, label, dialect, number, length_bucket"),
    (["number"], "slices: number, which has 60 values; allowed: 50 groups or fewer"),
    (["dialect", "dialect"], "slices: dialect twice; allowed: each column once"),
])  # fmt: skip
def test_groups_that_there_are_not_are_refused(context, by, expected):
    with pytest.raises(ValueError, match=f"^{expected}$"):
        check_slices(context, by, robustness=False)
    check_slices(context, ["dialect", "length_bucket"], robustness=True)


@pytest.mark.parametrize(("task", "by", "robustness", "expected"), [
    ({"type": "masked_lm"}, ["dialect"], False, "slices: dialect for masked_lm; allowed: where each row"),
    ({"type": "token_classification"}, [], True, "robustness: true for token_classification; allowed: for an answer"),
])  # fmt: skip
def test_tasks_that_have_no_such_thing_are_refused(place, task, by, robustness, expected):
    def change(recipe):
        recipe["task"] = {**recipe["task"], **task}

    context = Context(*load_recipe(write_recipe(place, change)), place, place / "run")
    with pytest.raises(ValueError, match=f"^{expected}"):
        check_slices(context, by, robustness)


def test_queries_that_perturbation_makes_the_same_are_ranked_apart(tmp_path, tokenizer, monkeypatch):
    rows = ["Who\ta card\t1", "Who\ta bank\t0", "who\ta card\t0", "who\ta bank\t1"]
    (tmp_path / "test.tsv").write_text("\n".join(["query\tpassage\tlabel", *rows]) + "\n")
    task, row = Reranking("train.tsv", "test.tsv"), ("student", "onnxruntime", "int8")
    scores = [np.array([score], dtype=np.float32) for score in (0.4, 0.3, 0.1, 0.2)]
    monkeypatch.setattr("edgemin_hf.recipe.analysis.load_runner", lambda *arguments, **settings: None)
    monkeypatch.setattr("edgemin_hf.recipe.analysis.predict_rows", lambda *arguments: scores)
    truth = task.references(task.tokenized(task.table(tmp_path, "test"), tokenizer, {}))
    predicted = {row: task.predictions(scores)}
    models = Models({row: ModelFile(tmp_path, 1, 1)}, {"student": tokenizer}, {row: task}, {row: scores}, predicted)
    context = SimpleNamespace(task=task, root=tmp_path, label_ids={}, threads=1)
    found = analyse(context, models, truth, [], robustness=True).robustness
    assert [one.name for one in found] == ["as they are", "with typos", "in lower case", "in upper case"]
    assert [one.student.value for one in found] == [1.0] * 4
