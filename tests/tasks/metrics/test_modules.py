from dataclasses import replace

import evaluate
import numpy as np
import pytest

from edgemin_hf.tasks import TextClassification, metrics
from edgemin_hf.tasks.metrics import Metric, check_module, difference, measure, metric_named, value_of

MODULE = """
import datasets
import evaluate


class Mistakes(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, factor=1):
        wrong = sum(a != b for a, b in zip(predictions, references))
        return {"mistakes": factor * wrong, "share": wrong / len(predictions), "all": [wrong]}
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "mistakes.py").write_text(MODULE)
    return tmp_path / "mistakes.py"


OWN = {"name": "mistakes.py", "result": "share", "trust_remote_code": True}
LABELS, FOUND = np.array([0, 1, 2, 1, 0, 2, 2, 1]), np.array([0, 1, 1, 1, 0, 2, 0, 1])


def test_a_module_of_a_file_is_measured_like_any_other(module):
    assert value_of(Metric(str(module), {"factor": 10}), LABELS, FOUND) == 20
    share = Metric(str(module), result="share", greater_is_better=False)
    found = measure(share, LABELS, FOUND)
    assert found == measure(share, LABELS, FOUND)
    assert (found["metric"], found["value"], found["n"]) == ("mistakes_share", 0.25, 8)
    assert 0 <= found["ci95"][0] < 0.25 < found["ci95"][1]
    value, (low, _) = difference(share, LABELS, LABELS, FOUND)
    assert value == 0.25  # less is better: no mistakes are ahead
    assert low >= 0


def test_a_record_says_of_what_less_is_better(module):
    """A name alone can't tell that of a metric that does not ship."""
    share = Metric(str(module), result="share", greater_is_better=False)
    assert measure(share, LABELS, FOUND)["greater_is_better"] is False
    for metric in (replace(share, greater_is_better=True), Metric("accuracy"), Metric("mse")):
        assert "greater_is_better" not in measure(metric, LABELS, FOUND)
    assert metric_named("mistakes_share", greater_is_better=False).way_up == metric_named("mse").way_up == "down"


def test_its_bootstrap_is_that_of_a_metric_that_ships(module, monkeypatch):
    monkeypatch.setattr("edgemin_hf.tasks.metrics.resampling.RESAMPLES", 200)
    low, high = measure(Metric(str(module), result="share"), LABELS, FOUND)["ci95"]
    shipped = measure(Metric("recall", {"average": "micro"}), LABELS, FOUND)["ci95"]
    np.testing.assert_allclose([1 - high, 1 - low], shipped, atol=1e-12)


def test_a_path_is_found_beside_the_recipe(module, tmp_path):
    task = TextClassification("train.tsv", "test.tsv", metric=["accuracy", OWN])
    task.settle_metrics(tmp_path, {"a": 0, "b": 1, "c": 2})
    found = task.measure(LABELS, FOUND, "abc")
    assert [other["value"] for other in found["others"]] == [0.25]
    assert [row["name"] for row in found["per_class"]] == ["a", "b", "c"]


def test_a_module_that_is_none_or_takes_something_else_is_told_in_one_line(module, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package_at_all")
    task = TextClassification("train.tsv", "test.tsv")
    for name, answer, message in (
        ("no_such.py", "label", "which is no file; allowed: an existing one, or a Hub id"),
        ("broken.py", "label", "which can't be loaded"),
        ("mistakes.py", "score", "which takes predictions of int and references of int; expected: one of scores"),
        ("mistakes.py", "answers", "which takes predictions of int"),
    ):
        with pytest.raises(ValueError, match=f"^metric: .*{name}, {message}") as error:
            check_module(Metric(name).located(tmp_path), answer)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"^metric.result: other of .*; allowed: mistakes, share$"):
        value_of(Metric(str(module), result="other"), LABELS, FOUND)
    assert task.metric_name == "accuracy"


@pytest.mark.parametrize("name", ["squad", "squad_v2"])
def test_a_module_of_squads_form_is_given_answers_in_it(name):
    path = f"{metrics.__path__[0]}/{name}.py"  # ours, as if it were somebody else's
    right, found = [["a cat"], ["dogs", "the dog"], ["x y"]], ["Cat", "dog", "x z"]
    check_module(Metric(path), "answers")
    other = Metric(path, result="f1")
    assert value_of(other, right, found) == pytest.approx(100 * value_of(Metric(name), right, found))


def test_no_metric_that_ships_asks_the_hub(monkeypatch):
    monkeypatch.setattr(evaluate, "load", None)
    task = TextClassification("train.tsv", "test.tsv", metric=["f1_macro", "accuracy", "matthews_correlation"])
    task.settle_metrics(__import__("pathlib").Path(), {"a": 0, "b": 1, "c": 2})
    assert task.measure(LABELS, FOUND)["metric"] == "f1_macro"
    assert metric_named("accuracy").local is not None
