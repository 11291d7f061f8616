from pathlib import Path

import pytest

from edgemin_hf.tasks import TASKS
from edgemin_hf.tasks.metrics import MODULES, Metric, metric_named, metrics_of
from edgemin_hf.tasks.metrics.choices import numbered
from edgemin_hf.tasks.metrics.known import DEFAULTS, local_module

KINDS = {"text_classification": "label", "regression": "score", "multi_label": "label set"}


def test_every_file_that_ships_is_found_and_says_what_it_is():
    for name in MODULES:
        local = local_module(name)
        assert local.results
        assert local.answers
        assert metric_named(name).name == name
        assert all(len(metric_named(f"{name}_{result}").heading) <= 17 for result in local.results)


@pytest.mark.parametrize("name", ["f1_macro", "f1_samples", "squad_v2_HasAns_exact", "seqeval_overall_recall", "mse"])
def test_a_name_of_a_record_is_that_of_the_metric_that_it_names(name):
    assert metric_named(name).name == name


def test_names_and_settings_say_the_same():
    for choice in ("f1_macro", {"name": "f1", "average": "macro"}, {"name": "f1_macro"}):
        assert metrics_of(choice, "label") == [Metric("f1", {"average": "macro"})]
    (strict,) = metrics_of({"name": "seqeval", "mode": "strict", "scheme": "IOB2"}, "tags")
    assert (strict.name, strict.title) == ("seqeval", "entity F1")
    for choice in ("seqeval", {"name": "seqeval", "result": "overall_f1"}, DEFAULTS["tags"]):
        assert metrics_of(choice, "tags") == [strict]
    (lenient,) = metrics_of({"name": "seqeval", "mode": None}, "tags")
    assert lenient.settings["mode"] is None
    (other,) = metrics_of({"name": "seqeval", "scheme": "IOBES"}, "tags")
    assert other.settings == {"mode": "strict", "scheme": "IOBES"}


def test_a_label_is_known_by_its_name_before_its_number():
    (asked,) = metrics_of({"name": "f1", "pos_label": 1}, "label")
    assert numbered(asked, {"1": 0, "2": 1}).settings["pos_label"] == 0
    assert numbered(asked, {"no": 0, "yes": 1}).settings["pos_label"] == 1
    task = TASKS["text_classification"]("a.csv", "b.csv", metric={"name": "f1", "pos_label": 2})
    for _ in range(2):  # the number that was found is not taken for a name
        task.settle_metrics(Path(), {"1": 0, "2": 1})
        assert task.metrics[0].settings["pos_label"] == 1


def test_the_first_decides_or_the_one_that_says_so():
    names = [metric.name for metric in metrics_of(["f1_macro", "accuracy"], "label")]
    assert names == ["f1_macro", "accuracy"]
    asked = ["accuracy", {"name": "f1", "average": "macro", "decides": True}, "recall_macro"]
    assert [metric.name for metric in metrics_of(asked, "label")] == ["f1_macro", "accuracy", "recall_macro"]


def test_another_module_has_its_settings_unread():
    asked = {"name": "someone/score", "depth": 3, "result": "total", "greater_is_better": False}
    with pytest.raises(ValueError, match="someone/score, whose code would run here; expected: trust_remote"):
        metrics_of(asked, "label")
    asked["trust_remote_code"] = True
    assert metrics_of(asked, "label") == [Metric("someone/score", {"depth": 3}, "total", False)]
    assert metrics_of(asked, "label")[0].name == "score_total"
    assert not metric_named("mse").greater_is_better


WRONG = {
    "of tags": ("seqeval", "metric: seqeval, which is of tags; allowed: accuracy, f1, .*, or another module"),
    "of scores": ("pearsonr", "metric: pearsonr, which is of scores; allowed: accuracy"),
    "of answers": ("squad_v2", "metric: squad_v2, which is of answers; allowed: accuracy"),
    "unknown": ("acuracy", "metric: acuracy; allowed: accuracy, f1, .* by path or Hub id .*trust_remote_code: true"),
    "no name": ({"average": "macro"}, "metric: .* without name; allowed: accuracy"),
    "a number for a name": ({"name": 3}, "metric.name: 3; expected: text"),
    "unknown setting": ({"name": "f1", "averages": "macro"}, "metric.averages: macro of f1; allowed: average, "),
    "no settings": ({"name": "accuracy", "average": "macro"}, "metric.average: macro of accuracy; allowed: no "),
    "unknown average": ({"name": "f1", "average": "mean"}, "metric.average: mean of f1; allowed: 'binary', 'micro'"),
    "samples of labels": ("f1_samples", "metric.average: samples of f1_samples of labels; allowed: micro, macro, "),
    "a label of a mean": ({"name": "f1_macro", "pos_label": 1}, "metric.pos_label: 1 beside average: macro; allowed: "),
    "unknown result": ({"name": "f1", "result": "f2"}, "metric.result: f2 of f1; allowed: f1"),
    "better": ({"name": "f1", "greater_is_better": False}, "metric.greater_is_better: False of f1; allowed: of other"),
    "twice": (["f1_macro", {"name": "f1", "average": "macro"}], "metric: f1_macro, f1_macro; allowed: each once"),
    "none": ([], r"metric: \[\]; expected: one or more"),
    "two that decide": (
        [{"name": "accuracy", "decides": True}, {"name": "f1_macro", "decides": True}],
        "metric: accuracy and f1_macro with decides: true; allowed: one of them",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("choice", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_a_task_does_not_give_is_told_in_one_line(choice, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        TASKS["text_classification"]("train.tsv", "test.tsv", metric=choice)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "name"), [("regression", "f1"), ("multi_label", "f1"), ("multi_label", "seqeval")])
def test_other_tasks_refuse_what_they_do_not_give_too(kind, name):
    with pytest.raises(ValueError, match=r"^metric"):
        TASKS[kind]("train.tsv", "test.tsv", metric=name)


def test_a_label_may_be_told_by_its_name():
    labels = {"ham": 0, "spam": 1, "phish": 2}
    (metric,) = metrics_of({"name": "f1", "pos_label": "phish"}, "label")
    assert numbered(metric, labels).settings == {"pos_label": 2}
    assert numbered(Metric("f1", {"pos_label": 0}), labels).settings == {"pos_label": 0}
    for wrong, message in ((Metric("f1", {"pos_label": "eggs"}), "pos_label: eggs; allowed: ham, spam, phish"),
                           (Metric("f1", {"pos_label": 3}), "pos_label: 3; allowed: ham"),
                           (Metric("f1"), r"f1 with 3 label\(s\); allowed: two labels, ")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            numbered(wrong, labels)
