import time

import evaluate
import numpy as np
import pytest
from scipy.stats import bootstrap, pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    recall_score,
)

from edgemin_hf.tasks.metrics import Metric, difference, measure, metric_named, per_class, value_of


def averaged(score, average):
    return lambda labels, predictions: score(labels, predictions, average=average, zero_division=0)


REFERENCE = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews_correlation": matthews_corrcoef,
    "pearsonr": lambda labels, predictions: pearsonr(labels, predictions).statistic,
    "spearmanr": lambda labels, predictions: spearmanr(labels, predictions).statistic,
    "mse": mean_squared_error,
    "mae": mean_absolute_error,
    **{
        f"{name}_{average}": averaged(score, average)
        for name, score in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score))
        for average in ("micro", "macro", "weighted", "samples")
    },
    "precision": precision_score,
    "recall": recall_score,
}
OF_SCORES = ("pearsonr", "spearmanr", "mse", "mae")
OF_SETS = ("f1_micro", "f1_macro", "f1_weighted", "f1_samples", "precision_macro", "recall_samples", "accuracy")
OF_LABELS = ("accuracy", "f1", "precision", "recall", "f1_micro", "f1_macro", "f1_weighted", "precision_macro",
             "recall_macro", "matthews_correlation")  # fmt: skip
CASES = [(name, answer) for answer, names in
         (("label", OF_LABELS), ("score", OF_SCORES), ("label set", OF_SETS)) for name in names]  # fmt: skip


FEW = 40


@pytest.fixture
def few_resamples(monkeypatch):
    """The libraries' own functions are slow, one resample at a time."""
    monkeypatch.setattr("edgemin_hf.tasks.metrics.resampling.RESAMPLES", FEW)


def predicted(name, answer="label", examples=60, labels=3, seed=0):
    """Labels and imperfect predictions of the kind that a metric is for."""
    generator = np.random.default_rng(seed)
    if answer == "score":
        truth = generator.integers(0, 11, examples) / 2  # with ties, like averaged human scores
        return truth, (truth + generator.normal(size=examples)).astype(np.float32)
    if answer == "label set":
        rarer = generator.random((examples, 4)) < np.array([0.6, 0.4, 0.2, 0.1])
        return rarer.astype(float), (rarer ^ (generator.random((examples, 4)) < 0.15)).astype(np.int64)
    labels = 2 if name in ("f1", "precision", "recall") else labels
    truth = generator.integers(0, labels, examples)
    return truth, np.where(generator.random(examples) < 0.7, truth, generator.integers(0, labels, examples))


def drawn_values(name, labels, predictions, compute):
    """What SciPy's own bootstrap gives of a metric that is computed anew for each resample."""

    def of_drawn(drawn, axis):
        return np.array([compute(labels[rows], predictions[rows]) for rows in drawn])

    found = bootstrap(
        (np.arange(len(labels)),), of_drawn, vectorized=True, n_resamples=FEW, batch=7, method="percentile",
        rng=np.random.default_rng(0),
    )  # fmt: skip
    return found.confidence_interval


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_metrics_are_those_of_the_libraries(name, answer):
    for seed in range(4):
        pair = predicted(name, answer, seed=seed)
        assert value_of(metric_named(name), *pair) == pytest.approx(REFERENCE[name](*pair), rel=1e-12)
    if metric_named(name).greater_is_better and not name.endswith("samples"):  # of no labels a sample's own are 0
        assert value_of(metric_named(name), pair[0], pair[0]) == pytest.approx(1)


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_intervals_are_those_of_metrics_computed_anew_for_each_resample(name, answer, few_resamples):
    labels, predictions = predicted(name, answer, examples=40, seed=5)
    found = measure(metric_named(name), labels, predictions)
    assert found == measure(metric_named(name), labels, predictions)
    assert (found["metric"], found["n"]) == (name, 40)
    assert found["ci95"][0] < found["value"] < found["ci95"][1]
    if name == "accuracy":  # Wilson's
        return
    np.testing.assert_allclose(found["ci95"], drawn_values(name, labels, predictions, REFERENCE[name]), rtol=1e-12)


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_a_difference_is_paired(name, answer, few_resamples):
    labels, ours = predicted(name, answer, examples=40, seed=2)
    theirs = predicted(name, answer, examples=40, seed=3)[1]
    value, ends = difference(metric_named(name), labels, ours, theirs)
    sign = -1 if name in ("mse", "mae") else 1
    compute = lambda labels, rows: sign * (REFERENCE[name](labels, ours[rows]) - REFERENCE[name](labels, theirs[rows]))  # noqa: E731
    rows = np.arange(40)
    assert value == pytest.approx(compute(labels, rows), rel=1e-10)
    np.testing.assert_allclose(ends, drawn_values(name, labels, rows, compute), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation", "pearsonr", "spearmanr"])
def test_a_metric_of_nothing_to_tell_apart_is_zero(name):
    labels, _ = predicted(name, "score" if name in OF_SCORES else "label")
    for constant in (np.zeros_like(labels), np.full(len(labels), 0.1 if name in OF_SCORES else 0)):
        assert measure(metric_named(name), labels, constant)["ci95"] == [0, 0]
        assert measure(metric_named(name), constant, labels)["value"] == 0


@pytest.mark.parametrize("name", ["f1_micro", "f1_macro"])
def test_f1_of_label_sets_without_any_label_or_with_one_is_that_of_scikit_learn(name):
    truth, found = predicted(name, "label set")
    nothing = np.zeros_like(truth)
    truth[:, 2] = found[:, 2] = 0  # a label that no row has and none is given
    for labels, predictions in ((truth, found), (nothing, found), (nothing, nothing), (truth[:, :1], found[:, :1])):
        expected = REFERENCE[name](labels, predictions) if labels.shape[1] > 1 else f1_score(labels, predictions)
        assert value_of(metric_named(name), labels, predictions) == pytest.approx(expected)


def test_the_label_of_f1_is_the_one_that_is_asked_for():
    labels, predictions = predicted("f1_macro")
    for number in (0, 2):
        metric = Metric("f1", {"pos_label": number})
        assert value_of(metric, labels, predictions) == pytest.approx(f1_score(labels == number, predictions == number))
    assert value_of(Metric("f1", {"pos_label": 7}), labels, predictions) == 0


@pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
def test_f1_is_that_of_rows_in_any_order_and_of_labels_by_any_numbers(average):
    labels, predictions = predicted("f1_macro", labels=7)
    order = np.random.default_rng(1).permutation(len(labels))
    metric = Metric("f1", {"average": average})
    value = value_of(metric, labels, predictions)
    assert value_of(metric, labels[order], predictions[order]) == pytest.approx(value, rel=1e-12)
    assert value_of(metric, labels * 5 + 2, predictions * 5 + 2) == pytest.approx(value, rel=1e-12)


def test_each_class_has_its_values():
    labels, predictions = predicted("f1_macro", labels=4)
    rows = per_class(Metric("f1"), "label", labels, predictions, "abcdef")
    assert [row["name"] for row in rows] == list("abcd")
    for part, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        np.testing.assert_allclose([row[part] for row in rows], score(labels, predictions, average=None))
    assert [row["support"] for row in rows] == np.bincount(labels).tolist()
    sets = predicted("f1_macro", "label set")
    rows = per_class(Metric("f1"), "label set", *sets, "abcd")
    np.testing.assert_allclose([row["f1"] for row in rows], f1_score(*sets, average=None))
    assert per_class(Metric("mse"), "score", *predicted("mse", "score"), ["score"]) == []


@pytest.mark.parametrize(("name", "answer"), [("f1_macro", "label"), ("spearmanr", "score"), ("pearsonr", "score")])
def test_a_bootstrap_of_3000_examples_takes_seconds(name, answer):
    pair = predicted(name, answer, examples=3000, labels=150)
    start = time.process_time()
    measure(metric_named(name), *pair)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
def test_correlations_of_far_or_near_numbers_are_as_exact(scale):
    truth, found = predicted("pearsonr", "score")
    truth, found = 1e4 * scale + scale * truth, scale * found.astype(float)
    assert value_of(metric_named("pearsonr"), truth, found) == pytest.approx(pearsonr(truth, found).statistic, rel=1e-9)


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_what_ships_is_a_module_of_evaluate(name, answer, tmp_path):
    from edgemin_hf.tasks import metrics

    asked = metric_named(name)
    if asked.settings.get("average") == "samples":
        return
    pair = predicted(name, answer)
    module = evaluate.load(f"{metrics.__path__[0]}/{asked.module}.py", cache_dir=str(tmp_path))
    found = module.compute(references=pair[0], predictions=pair[1], **asked.settings)
    assert found == {asked.module: pytest.approx(value_of(asked, *pair))}
