"""Class changes, groups, agreement and calibration, against scikit-learn, SciPy and NumPy."""

import json

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import bootstrap, pearsonr
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, f1_score

from edgemin_hf.tasks.metrics import Metric, metric_named
from edgemin_hf.tasks.metrics.agreement import agreement
from edgemin_hf.tasks.metrics.analysis import Analysis
from edgemin_hf.tasks.metrics.calibration import calibration
from edgemin_hf.tasks.metrics.class_changes import class_changes
from edgemin_hf.tasks.metrics.slices import slices

FEW = 25


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr("edgemin_hf.tasks.metrics.resampling.RESAMPLES", FEW)


def labels(examples=90, classes=4, seed=0):
    """The truth, and what two imperfect models say."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, examples)
    guesses = [generator.integers(0, classes, examples) for _ in range(2)]
    known = [generator.random(examples) < share for share in (0.8, 0.6)]
    return truth, *(np.where(right, truth, guess) for right, guess in zip(known, guesses, strict=True))


def test_changes_of_classes_are_those_of_scikit_learn_with_paired_intervals(few_resamples):
    truth, teacher, student = labels()

    def f1(rows, side):
        return f1_score(truth[rows], side[rows], labels=range(4), average=None, zero_division=0)

    expected = bootstrap(
        (np.arange(90),), lambda rows: f1(rows, student) - f1(rows, teacher), vectorized=False, n_resamples=FEW,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    found = class_changes(Metric("accuracy"), "label", truth, teacher, student, list("abcd"))
    assert [one.change for one in found] == sorted(one.change for one in found)
    for one in found:
        number = "abcd".index(one.name)
        assert (one.teacher, one.student) == pytest.approx((f1(..., teacher)[number], f1(..., student)[number]))
        assert one.change == pytest.approx(one.student - one.teacher)
        assert one.ci95 == pytest.approx((expected.low[number], expected.high[number]))
        assert one.support == (truth == number).sum()


def test_a_class_that_one_model_alone_invents_is_none_that_changed():
    truth, teacher, student = np.array([0, 0, 1]), np.array([0, 0, 1]), np.array([2, 0, 1])
    found = class_changes(Metric("accuracy"), "label", truth, teacher, student, ["a", "b", "c"])
    assert {one.name: round(one.change, 4) for one in found} == {"a": -0.3333, "b": 0.0}
    assert class_changes(Metric("mse"), "score", truth, teacher, student, []) == []


def test_sets_of_labels_change_label_by_label(few_resamples):
    generator = np.random.default_rng(2)
    truth, teacher, student = (generator.random((60, 3)) < 0.4 for _ in range(3))
    truth[:, 2] = False  # which no text has, so that it can't change
    found = class_changes(Metric("f1_micro"), "label set", *map(np.int64, (truth, teacher, student)), ["a", "b", "c"])
    scores = [f1_score(truth, side, average=None, zero_division=0) for side in (teacher, student)]
    assert {one.name: (one.teacher, one.student) for one in found} == {
        name: pytest.approx((scores[0][number], scores[1][number])) for number, name in enumerate("ab")
    }


def test_entities_change_by_type():
    truth = [["B-sum", "O"], ["B-thing", "I-thing"]] * 20
    student = [["B-sum", "O"], ["B-thing", "O"]] * 20
    metric = Metric("seqeval", {"mode": "strict", "scheme": "IOB2"})
    found = class_changes(metric, "tags", truth, truth, student, [])
    assert [(one.name, one.teacher, one.student, one.support) for one in found] == [
        ("thing", 1.0, 0.0, 20),
        ("sum", 1.0, 1.0, 20),
    ]


@pytest.mark.parametrize(("metric", "reference"), [
    ("accuracy", accuracy_score), ("f1_macro", lambda *sides: f1_score(*sides, average="macro", zero_division=0)),
])  # fmt: skip
def test_groups_have_the_metric_of_their_own_examples(metric, reference, few_resamples):
    truth, teacher, student = labels(300)
    by = np.random.default_rng(1).choice(["north", "south", "west"], 300)
    found = slices("dialect", by.tolist(), metric_named(metric), truth, teacher, student, ["south", "north", "west"])
    assert [group.name for group in found.groups] == ["south", "north", "west"]
    values = []
    for group in found.groups:
        rows = by == group.name
        assert group.n == rows.sum()
        values.append([reference(truth[rows], side[rows]) for side in (teacher, student)])
        assert [group.teacher.value, group.student.value] == pytest.approx(values[-1])
    teachers, students = np.ptp(values, axis=0)
    assert (found.teacher_gap.value, found.student_gap.value) == pytest.approx((teachers, students))
    assert found.widened.value == pytest.approx(students - teachers)


def test_the_interval_of_a_gap_is_that_of_a_difference_of_two_shares():
    hits = [np.repeat([1, 0], counts) for counts in ((360, 40), (280, 120))]
    found = slices("by", ["a"] * 400 + ["b"] * 400, Metric("accuracy"), np.ones(800), None, np.concatenate(hits))
    half = 1.96 * np.sqrt(0.9 * 0.1 / 400 + 0.7 * 0.3 / 400)
    assert found.student_gap.value == pytest.approx(0.2)
    assert found.student_gap.ci95 == pytest.approx((0.2 - half, 0.2 + half), abs=0.006)
    assert (found.teacher_gap, found.widened, found.groups[0].teacher) == (None, None, None)
    alone = slices("by", ["a"] * 800, Metric("accuracy"), np.ones(800), None, np.concatenate(hits))
    assert alone.student_gap is None


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_a_group_of_one_example_is_measured_and_makes_no_gap(metric, few_resamples):
    truth, teacher, student = labels(61)
    student[0] = (truth[0] + 1) % 4
    by = ["rare", *["north", "south"] * 30]
    found = slices("dialect", by, metric_named(metric), truth, teacher, student)
    assert [(group.name, group.n) for group in found.groups] == [("rare", 1), ("north", 30), ("south", 30)]
    assert found.groups[0].student.value == 0
    assert [group.name for group in found.compared] == ["north", "south"]
    low, high = sorted(group.student.value for group in found.groups[1:])
    assert found.student_gap.value == pytest.approx(high - low)
    assert slices("dialect", by[:15], metric_named(metric), truth[:15], None, student[:15]).student_gap is None


def test_one_example_and_sentences_without_entities_have_changes_too():
    (one,) = class_changes(Metric("accuracy"), "label", np.array([1]), np.array([1]), np.array([0]), ["no", "yes"])
    assert (one.name, one.change, one.ci95) == ("yes", -1.0, (-1.0, -1.0))
    metric = Metric("seqeval", {"mode": "strict", "scheme": "IOB2"})
    nothing, invented = [["O", "O"]] * 2, [["B-sum", "O"], ["O", "O"]]
    assert class_changes(metric, "tags", nothing, invented, nothing, []) == []


def test_groups_of_lists_of_answers_are_measured_too():
    truth, found = [["a"], ["b"], ["c"], ["d"]], ["a", "b", "x", "d"]
    of = slices("by", ["1", "1", "2", "2"], Metric("exact_match"), truth, found, found)
    assert [group.student.value for group in of.groups] == [1.0, 0.5]


def test_calibration_has_the_bins_of_scikit_learn_and_the_error_of_numpy():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(1500, 5)).astype(np.float32) * 2
    truth = np.where(generator.random(1500) < 0.5, logits.argmax(axis=1), generator.integers(0, 5, 1500))
    found = calibration(logits, truth)
    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    hits = logits.argmax(axis=1) == truth
    right, sure = calibration_curve(hits, confidence, n_bins=15, strategy="quantile")
    assert [one.accuracy for one in found.bins] == pytest.approx(right)
    assert [one.confidence for one in found.bins] == pytest.approx(sure)
    assert [one.n for one in found.bins] == [100] * 15
    assert found.ece == pytest.approx(np.mean(np.abs(right - sure)))
    assert (found.confidence, found.accuracy) == pytest.approx((confidence.mean(), hits.mean()))
    few = calibration(logits[:7], truth[:7])
    assert (len(few.bins), sum(one.n for one in few.bins)) == (7, 7)


def test_agreement_is_a_metric_with_the_teacher_as_the_truth():
    _, teacher, student = labels()
    same = agreement(Metric("f1", {"average": "macro"}), "label", teacher, student)
    assert (same.metric, same.value) == ("accuracy", pytest.approx((teacher == student).mean()))
    scores = np.random.default_rng(0).normal(size=(2, 50))
    for answer in ("score", "ranking"):
        assert agreement(Metric("mse"), answer, *scores).value == pytest.approx(pearsonr(*scores).statistic)
    assert agreement(Metric("squad"), "answers", ["a", "", "c"], ["a", "", "x"]).value == pytest.approx(2 / 3)
    tags = [["B-a", "I-a"], ["O", "O"]]
    assert agreement(Metric("seqeval", {"mode": "strict", "scheme": "IOB2"}), "tags", tags, tags).value == 1.0
    assert agreement(Metric("masked_accuracy"), "masked tokens", [], []) is None


def test_an_analysis_comes_back_from_its_file(few_resamples):
    truth, teacher, student = labels()
    logits = np.eye(4)[student]
    found = Analysis(
        ("teacher", "onnxruntime", "fp32"),
        ("student", "onnxruntime", "int8"),
        agreement(Metric("accuracy"), "label", teacher, student),
        tuple(class_changes(Metric("accuracy"), "label", truth, teacher, student, list("abcd"))),
        {"student": calibration(logits, truth)},
        (slices("by", ["x", "y"] * 45, Metric("accuracy"), truth, teacher, student),),
    )
    assert Analysis.from_dict(json.loads(json.dumps(found.to_dict()))) == found
