"""What a task is measured by: metrics under the names that `evaluate` gives them, each with its 95% interval."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ConstantInputWarning, NearConstantInputWarning, binomtest, bootstrap, pearsonr, rankdata

from edgemin_hf.tasks.entities import entity_counts, entity_f1

_RESAMPLES = 2000
_BATCH_VALUES = 1_000_000
"""Values of the resamples that are held in memory at once, of labels and of predictions."""


Answer = Literal["label", "score", "label set", "tags"]
"""What labels and predictions are: numbers of labels (examples,), scores (examples,), 0 and 1 (examples, labels), or
lists of tags."""
Arrays: TypeAlias = NDArray[np.int64 | np.float32 | np.float64]
"""Labels or predictions, as `Answer` says, or several such arrays (..., examples) or (..., examples, labels)."""
Answers: TypeAlias = Arrays | Sequence[Any]
"""Labels or predictions: an array where an answer is a number or several; else a list of them, one an example."""
Values = NDArray[np.float64]
"""What a metric makes of them, (...)."""


class Measurement(TypedDict):
    """What `measure` found.

    Attributes:
        metric: Name of the metric, a key of `METRICS`.
        value: Its value, at best 1.
        ci95: Both ends of its 95% interval.
        n: Number of examples.

    Example:
        >>> from edgemin_hf.tasks import Measurement
        >>> Measurement(metric="accuracy", value=0.9, ci95=[0.85, 0.93], n=200)["value"]
        0.9
    """

    metric: str
    value: float
    ci95: list[float]
    n: int


@dataclass(frozen=True)
class Metric:
    """A metric: the higher the better, 1 at best. What would be 0 / 0, such as a correlation with a constant, is 0.

    Attributes:
        title: Its name in a sentence.
        unit: What 100 times its value is written with.
        heading: What stands over a column of such values with their intervals.
        compute: From labels and predictions (..., examples), sets (..., examples, labels), to the metric (...).
        answer: What labels and predictions are.
        counts: What makes arrays (examples, numbers) of labels and predictions that are lists; None where they are
            arrays.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks import METRICS
        >>> metric = METRICS["accuracy"]
        >>> metric.title, metric.compute(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])).item()
        ('accuracy', 0.75)
    """

    title: str
    unit: Literal["%", "×100"]
    heading: str
    compute: Callable[[Arrays, Arrays], Values]
    answer: Answer = "label"
    counts: Callable[[Any, Any], tuple[Arrays, Arrays]] | None = None

    def arrays(self, labels: Answers, *predictions: Answers) -> list[Arrays]:
        """Return what `compute` takes: the labels and the predictions of each of several models, in pairs."""
        if self.counts is None:
            return [array for found in predictions for array in (np.asarray(labels), np.asarray(found))]
        return [array for found in predictions for array in self.counts(labels, found)]


def accuracy(labels: Arrays, predictions: Arrays) -> Values:
    """Compute the share of hits."""
    hits: Values = (labels == predictions).mean(axis=-1)
    return hits


def f1(labels: Arrays, predictions: Arrays) -> Values:
    """Compute the harmonic mean of precision and recall of label 1."""
    truth, found = labels == 1, predictions == 1
    values: Values = 2 * (truth & found).sum(axis=-1) / np.maximum(truth.sum(axis=-1) + found.sum(axis=-1), 1)
    return values


def matthews_correlation(labels: Arrays, predictions: Arrays) -> Values:
    """Compute Matthews' correlation of two or more labels: R_K of Gorodkin (2004), for two the phi coefficient."""
    classes = np.union1d(labels, predictions)
    counts = [np.stack([(side == c).sum(axis=-1, dtype=float) for c in classes]) for side in (labels, predictions)]
    examples = labels.shape[-1]
    covariance = examples * (labels == predictions).sum(axis=-1) - (counts[0] * counts[1]).sum(axis=0)
    variances = [examples**2 - (count**2).sum(axis=0) for count in counts]
    values: Values = covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1))
    return values


def pearson(labels: Arrays, predictions: Arrays) -> Values:
    """Compute Pearson's correlation."""
    with warnings.catch_warnings():
        for expected in (ConstantInputWarning, NearConstantInputWarning):
            warnings.simplefilter("ignore", expected)
        values: Values = np.nan_to_num(pearsonr(labels, predictions, axis=-1).statistic)
    return values


def spearman(labels: Arrays, predictions: Arrays) -> Values:
    """Compute Spearman's rank correlation; equal values share their mean rank."""
    return pearson(rankdata(labels, axis=-1), rankdata(predictions, axis=-1))


def f1_micro(labels: Arrays, predictions: Arrays) -> Values:
    """Compute F1 over all decisions about all labels."""
    hits = (labels * predictions).sum(axis=(-2, -1))
    values: Values = 2 * hits / np.maximum(labels.sum(axis=(-2, -1)) + predictions.sum(axis=(-2, -1)), 1)
    return values


def f1_macro(labels: Arrays, predictions: Arrays) -> Values:
    """Compute the mean over labels of each label's F1."""
    hits = (labels * predictions).sum(axis=-2)
    of_labels: Values = 2 * hits / np.maximum(labels.sum(axis=-2) + predictions.sum(axis=-2), 1)
    values: Values = of_labels.mean(axis=-1)
    return values


# A heading has at most 17 characters, as many as a value with its interval: the table is to fit a terminal.
METRICS = {
    "accuracy": Metric("accuracy", "%", "accuracy % [95%]", accuracy),
    "f1": Metric("F1", "%", "F1 % [95%]", f1),
    "matthews_correlation": Metric("Matthews correlation", "×100", "Matthews ×100", matthews_correlation),
    "pearsonr": Metric("Pearson correlation", "×100", "Pearson ×100", pearson, "score"),
    "spearmanr": Metric("Spearman correlation", "×100", "Spearman ×100", spearman, "score"),
    "f1_micro": Metric("micro F1", "%", "micro F1 % [95%]", f1_micro, "label set"),
    "f1_macro": Metric("macro F1", "%", "macro F1 % [95%]", f1_macro, "label set"),
    "entity_f1": Metric("entity F1", "%", "entity F1 % [95%]", entity_f1, "tags", entity_counts),
}
"""The metrics by their names in `evaluate` and on the Hub."""


def value_of(name: str, labels: Answers, predictions: Answers) -> float:
    """Compute a metric alone; see `measure`."""
    metric = METRICS[name]
    return float(metric.compute(*metric.arrays(labels, predictions)))


def measure(name: str, labels: Answers, predictions: Answers) -> Measurement:
    """Measure predictions, with a 95% interval.

    The interval of accuracy is Wilson's; that of any other metric goes from the 2.5th to the 97.5th percentile of 2,000
    bootstrap resamples of the examples (Efron 1979), always the same ones.

    Args:
        name: Name of the metric, a key of `METRICS`.
        labels: The truth, as the metric's `answer` says.
        predictions: The predictions, likewise.

    Returns:
        "metric", its name; "value"; "ci95", both ends of the interval; "n", the number of examples.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks import measure
        >>> found = measure("accuracy", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        >>> found["value"], [round(end, 2) for end in found["ci95"]]
        (0.75, [0.3, 0.95])
    """
    compute = METRICS[name].compute
    labels, predictions = METRICS[name].arrays(labels, predictions)
    value = float(compute(labels, predictions))
    if name == "accuracy":
        hits = int((labels == predictions).sum())
        wilson = binomtest(hits, len(labels)).proportion_ci(0.95, method="wilson")
        ends = float(wilson.low), float(wilson.high)
    else:
        ends = _interval(labels, lambda drawn: compute(labels[drawn], predictions[drawn]))
    return {"metric": name, "value": value, "ci95": [*ends], "n": len(labels)}


def difference(name: str, labels: Answers, ours: Answers, theirs: Answers) -> tuple[float, tuple[float, float]]:
    """Measure by how much one set of predictions is better than another of the same examples.

    The interval goes from the 2.5th to the 97.5th percentile of 2,000 bootstrap resamples of the examples, in which
    both sets are measured on the same ones (a paired bootstrap; Koehn 2004).

    Args:
        name: Name of the metric, a key of `METRICS`.
        labels: The truth, as the metric's `answer` says.
        ours: Predictions, likewise.
        theirs: The others.

    Returns:
        The difference, and both ends of its 95% interval.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import difference
        >>> value, (low, high) = difference("accuracy", np.ones(200), np.ones(200), np.repeat([0, 1], 100))
        >>> value, low > 0.4, high < 0.6
        (0.5, True, True)
    """
    compute = METRICS[name].compute
    labels, ours, others, theirs = METRICS[name].arrays(labels, ours, theirs)
    value = float(compute(labels, ours) - compute(others, theirs))
    return value, _interval(
        labels, lambda drawn: compute(labels[drawn], ours[drawn]) - compute(others[drawn], theirs[drawn])
    )


def _interval(labels: Arrays, statistic: Callable[[NDArray[np.int64]], Values]) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of a statistic of examples drawn with replacement."""
    interval = bootstrap(
        (np.arange(len(labels)),),
        lambda drawn, axis: statistic(drawn),
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=max(1, _BATCH_VALUES // labels.size),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
