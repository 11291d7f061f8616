import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from edgemin_hf.tasks.metrics import METRICS, measure


def averaged_f1(average):
    return lambda labels, predictions: f1_score(labels, predictions, average=average, zero_division=0)


REFERENCE = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews_correlation": matthews_corrcoef,
    "pearsonr": lambda labels, predictions: pearsonr(labels, predictions).statistic,
    "spearmanr": lambda labels, predictions: spearmanr(labels, predictions).statistic,
    "f1_micro": averaged_f1("micro"),
    "f1_macro": averaged_f1("macro"),
}


def predicted(name, examples=60, labels=3, seed=0):
    """Labels and imperfect predictions of the kind that a metric is for."""
    generator = np.random.default_rng(seed)
    if METRICS[name].answer == "score":
        truth = generator.integers(0, 11, examples) / 2  # with ties, like averaged human scores
        return truth, (truth + generator.normal(size=examples)).astype(np.float32)
    if METRICS[name].answer == "label set":
        rarer = generator.random((examples, 4)) < np.array([0.6, 0.4, 0.2, 0.1])
        return rarer.astype(float), (rarer ^ (generator.random((examples, 4)) < 0.15)).astype(np.int64)
    labels = 2 if name == "f1" else labels
    truth = generator.integers(0, labels, examples)
    return truth, np.where(generator.random(examples) < 0.7, truth, generator.integers(0, labels, examples))


def test_there_is_a_reference_for_each_metric():
    assert REFERENCE.keys() == METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_those_of_the_libraries_one_by_one_and_many_at_once(name):
    pairs = [predicted(name, seed=seed) for seed in range(4)]
    expected = [REFERENCE[name](*pair) for pair in pairs]
    many = METRICS[name].compute(*(np.stack(side) for side in zip(*pairs, strict=True)))
    np.testing.assert_allclose(many, expected, rtol=1e-6)
    for pair, value in zip(pairs, expected, strict=True):
        assert measure(name, *pair)["value"] == pytest.approx(value, rel=1e-6)
    assert METRICS[name].compute(pairs[0][0], pairs[0][0]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["f1", "matthews_correlation", "pearsonr", "spearmanr", "f1_micro", "f1_macro"])
def test_a_metric_of_nothing_to_tell_apart_is_zero(name):
    labels, _ = predicted(name)
    assert measure(name, labels, np.zeros_like(labels))["ci95"] == [0, 0]


@pytest.mark.parametrize("name", ["f1_micro", "f1_macro"])
def test_f1_of_label_sets_without_any_label_or_with_one_is_that_of_scikit_learn(name):
    truth, found = predicted(name)
    nothing = np.zeros_like(truth)
    truth[:, 2] = found[:, 2] = 0  # a label that no row has and none is given
    for labels, predictions in ((truth, found), (nothing, found), (nothing, nothing), (truth[:, :1], found[:, :1])):
        expected = REFERENCE[name](labels, predictions) if labels.shape[1] > 1 else f1_score(labels, predictions)
        assert METRICS[name].compute(labels, predictions) == pytest.approx(expected)


@pytest.mark.long
@pytest.mark.parametrize("name", METRICS)
def test_intervals_are_repeatable_and_those_of_a_plain_bootstrap(name):
    labels, predictions = predicted(name, examples=150)
    found = measure(name, labels, predictions)
    assert found == measure(name, labels, predictions)
    assert (found["metric"], found["n"]) == (name, 150)
    generator = np.random.default_rng(7)
    drawn = [generator.integers(0, 150, 150) for _ in range(600)]
    values = [REFERENCE[name](labels[rows], predictions[rows]) for rows in drawn]
    # Both are random, or Wilson's: a tenth of the interval's width is what they may differ by.
    low, high = np.percentile(values, [2.5, 97.5])
    np.testing.assert_allclose(found["ci95"], [low, high], atol=0.15 * (high - low))
    assert found["ci95"][0] < found["value"] < found["ci95"][1]
