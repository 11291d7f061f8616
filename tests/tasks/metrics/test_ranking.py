"""Rankings within groups: hand-made cases, scikit-learn, a CrossEncoder's own evaluator, and what changes nothing."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import ndcg_score

from edgemin_hf.tasks.metrics import Metric, difference, measure, metrics_of, value_of

NDCG, MRR = Metric("ndcg_at_10"), Metric("mrr_at_10")


def truth(relevance, groups):
    return np.column_stack([relevance, groups]).astype(float)


def graded(rows=400, groups=25, highest=3, seed=0):
    """Grades, groups in no order, and scores."""
    generator = np.random.default_rng(seed)
    sides = generator.integers(0, highest + 1, rows), generator.integers(0, groups, rows)
    return truth(*sides), generator.normal(size=rows)


def one_by_one(references, scores, value):
    """The values of groups with a relevant row, each by itself."""
    relevance, groups = references.T
    parts = [(relevance[groups == group], scores[groups == group]) for group in np.unique(groups)]
    return np.array([value(*part) for part in parts if part[0].max() > 0])


def reciprocal_rank(relevance, scores):
    for rank, row in enumerate(np.argsort(-scores)[:10], start=1):
        if relevance[row] > 0:
            return 1 / rank
    return 0.0


def gain(relevance, scores):
    return ndcg_score([relevance], [scores], k=10) if len(scores) > 1 else 1.0


def test_a_case_by_hand():
    # Group 5: the relevant row is second. Group 2: grades 1, 3 in that order. Group 9 has nothing relevant.
    references = truth([0, 1, 0, 1, 3, 0], [5, 5, 5, 2, 2, 9])
    scores = np.array([3.0, 2.0, 1.0, 0.9, 0.8, 7.0])
    log = np.log2
    of_grades = (1 / log(2) + 3 / log(3)) / (3 / log(2) + 1 / log(3))
    found = measure(NDCG, references, scores)
    assert found["value"] == pytest.approx((1 / log(3) + of_grades) / 2)
    assert found["n"] == 2
    assert value_of(MRR, references, scores) == pytest.approx((1 / 2 + 1) / 2)


def test_ten_rows_count():
    scores = -np.arange(12.0)
    for place, gain_there, rank in ((9, 1 / np.log2(11), 1 / 10), (10, 0, 0)):
        references = truth(np.arange(12) == place, np.zeros(12))
        assert value_of(NDCG, references, scores) == pytest.approx(gain_there)
        assert value_of(MRR, references, scores) == pytest.approx(rank)


@pytest.mark.parametrize(("metric", "value"), [(NDCG, gain), (MRR, reciprocal_rank)])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("groups", [3, 25, 150])
def test_groups_are_measured_one_by_one(metric, value, seed, groups):
    references, scores = graded(groups=groups, seed=seed, highest=1 + seed)
    each = one_by_one(references, scores, value)
    found = measure(metric, references, scores)
    assert found["value"] == pytest.approx(each.mean(), abs=1e-12)
    assert found["n"] == len(each)


def test_the_interval_is_of_groups():
    references, scores = graded(groups=40)
    each = one_by_one(references, scores, gain)
    interval = bootstrap((each,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose(measure(NDCG, references, scores)["ci95"], interval, atol=0.01)
    value, (low, high) = difference(NDCG, references, references[:, 0] + 0.0, scores)
    assert value == pytest.approx(1 - each.mean())
    assert low <= value <= high


def test_neither_the_order_of_rows_nor_numbers_of_groups_nor_the_scale_of_scores_matters():
    references, scores = graded()
    order = np.random.default_rng(3).permutation(len(scores))
    others = truth(references[:, 0], 1000 - references[:, 1])
    for metric in (NDCG, MRR):
        expected = value_of(metric, references, scores)
        assert value_of(metric, references[order], scores[order]) == pytest.approx(expected, abs=1e-12)
        assert value_of(metric, others, 1 / (1 + np.exp(-scores))) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_tells_nothing_apart_gains_nothing():
    references = truth([1, 0, 0, 0], [0, 0, 0, 0])
    assert value_of(MRR, references, np.zeros(4)) == 1 / 4
    assert value_of(NDCG, references, np.zeros(4)) == pytest.approx(1 / np.log2(5))


def test_without_a_relevant_row_there_is_no_value():
    references = truth([0, 0], [0, 0])
    assert value_of(NDCG, references, np.zeros(2)) == 0
    assert NDCG.local.examples(references) == 0


def test_they_are_modules_of_evaluate():
    module = NDCG.local()
    assert module.compute(predictions=[0.1, 0.2], references=[[1, 0], [0, 0]]) == {
        "ndcg_at_10": pytest.approx(1 / np.log2(3))
    }
    assert MRR.local().compute(predictions=[0.1, 0.2], references=[[1, 0], [0, 0]]) == {"mrr_at_10": 0.5}
    assert [metric.title for metric in metrics_of(["mrr_at_10", "ndcg_at_10"], "ranking")] == ["MRR@10", "nDCG@10"]
    with pytest.raises(ValueError, match=r"metric: ndcg_at_10, which is of rankings; allowed: pearsonr, .*"):
        metrics_of("ndcg_at_10", "score")
    with pytest.raises(ValueError, match=r"metric: pearsonr, which is of scores; allowed: ndcg_at_10, mrr_at_10, or"):
        metrics_of("pearsonr", "ranking")


@pytest.mark.parametrize("at", [10])
def test_they_equal_the_evaluator_of_cross_encoders(at):
    evaluation = pytest.importorskip("sentence_transformers.cross_encoder.evaluation")
    evaluator = evaluation.CrossEncoderRerankingEvaluator([], at_k=at)
    references, scores = graded(highest=1, groups=30)
    groups = references[:, 1]
    ours = [[references[groups == group, 0], scores[groups == group]] for group in np.unique(groups)]
    theirs = np.array([evaluator.compute_metrics(*part) for part in ours if part[0].max() > 0])
    assert value_of(MRR, references, scores) == pytest.approx(theirs[:, 0].mean(), abs=1e-12)
    assert value_of(NDCG, references, scores) == pytest.approx(theirs[:, 1].mean(), abs=1e-12)
