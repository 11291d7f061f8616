"""What predictions are worth by a metric: values, 95% intervals, differences of two, and each class on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np
from scipy.stats import binomtest

from edgemin_hf.tasks.metrics.base import Answer, Answers, Statistic, Values
from edgemin_hf.tasks.metrics.counts import Counts, counts_of, rows_of
from edgemin_hf.tasks.metrics.entities import counts_of_entities
from edgemin_hf.tasks.metrics.known import Metric
from edgemin_hf.tasks.metrics.modules import examples_of, statistic_of
from edgemin_hf.tasks.metrics.resampling import ends, resampled


class ClassValues(TypedDict):
    """What one class is worth: a label, or a type of entities.

    Attributes:
        name: Its name.
        precision: The share of what is found that is true.
        recall: The share of what is true that is found; of labels that exclude each other, the accuracy of this one.
        f1: Their harmonic mean.
        support: How often it is true.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


class Measurement(TypedDict):
    """What predictions are worth.

    Attributes:
        metric: Name of the metric.
        value: Its value.
        ci95: Both ends of its 95% interval.
        greater_is_better: False of a metric that does not ship and of which less is better, which its name can't tell.
        n: Number of examples; of rankings that of the groups that count.
        others: The same of the task's further metrics, where it has some.
        per_class: What each class is worth, where there are classes.
        further_tests: The same of further test sets, by name.

    Example:
        >>> from edgemin_hf.tasks import Measurement
        >>> Measurement(metric="accuracy", value=0.9, ci95=[0.85, 0.93], n=200)["value"]
        0.9
    """

    metric: str
    value: float
    ci95: list[float]
    n: int
    greater_is_better: NotRequired[bool]
    others: NotRequired[list[Measurement]]
    per_class: NotRequired[list[ClassValues]]
    further_tests: NotRequired[dict[str, Measurement]]


def value_of(metric: Metric, references: Answers, predictions: Answers) -> float:
    """Return a metric's value, as `measure` does.

    Args:
        metric: The metric.
        references: The truth, one an example.
        predictions: The predictions, likewise.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric, value_of
        >>> value_of(Metric("accuracy"), np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        0.75
    """
    return float(statistic_of(metric, references, predictions)(np.ones((1, examples_of(metric, references))))[0])


def measure(metric: Metric, references: Answers, predictions: Answers) -> Measurement:
    """Measure predictions, with a 95% interval.

    The interval of accuracy is Wilson's; that of any other metric goes from the 2.5th to the 97.5th percentile of 2,000
    bootstrap resamples of the examples (Efron 1979), always the same ones; of 200 where the metric does not ship and
    must be computed anew for each.

    Args:
        metric: The metric.
        references: The truth, one an example.
        predictions: The predictions, likewise.

    Returns:
        What was found.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks import measure
        >>> from edgemin_hf.tasks.metrics import Metric
        >>> found = measure(Metric("accuracy"), np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        >>> found["value"], [round(end, 2) for end in found["ci95"]]
        (0.75, [0.3, 0.95])
    """
    statistic, count = statistic_of(metric, references, predictions), examples_of(metric, references)
    value = float(statistic(np.ones((1, count)))[0])
    if metric.name == "accuracy" and metric.local:
        wilson = binomtest(round(value * count), count).proportion_ci(0.95, method="wilson")
        ends = float(wilson.low), float(wilson.high)
    else:
        ends = _interval(statistic, count, metric)
    found: Measurement = {"metric": metric.name, "value": value, "ci95": [*ends], "n": count}
    return found if metric.local or metric.greater_is_better else {**found, "greater_is_better": False}


def difference(
    metric: Metric, references: Answers, ours: Answers, theirs: Answers
) -> tuple[float, tuple[float, float]]:
    """Measure by how much one set of predictions is better than another of the same examples.

    The interval is a bootstrap's as of `measure`, accuracy's too, in which both sets are measured on the same resamples
    (a paired bootstrap; Koehn 2004).

    Args:
        metric: The metric.
        references: The truth, one an example.
        ours: Predictions, likewise.
        theirs: The others.

    Returns:
        The difference, above 0 where ours are better, and both ends of its 95% interval.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric, difference
        >>> value, (low, high) = difference(Metric("accuracy"), np.ones(200), np.ones(200), np.repeat([0, 1], 100))
        >>> value, low > 0.4, high < 0.6
        (0.5, True, True)
    """
    sides = [statistic_of(metric, references, side) for side in (ours, theirs)]
    sign = 1 if metric.greater_is_better else -1

    def ahead(weights: Values) -> Values:
        return sign * (sides[0](weights) - sides[1](weights))

    count = examples_of(metric, references)
    return float(ahead(np.ones((1, count)))[0]), _interval(ahead, count, metric)


def per_class(
    metric: Metric, answer: Answer, references: Any, predictions: Any, names: Sequence[str]
) -> list[ClassValues]:
    """Return what each class is worth; none where answers have no classes.

    Args:
        metric: The metric that decides, whose settings say what an entity is.
        answer: What the two are.
        references: The truth, one an example.
        predictions: The predictions, likewise.
        names: The names of the labels, by number.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric, per_class
        >>> per_class(Metric("accuracy"), "label", np.array([0, 1, 1]), np.array([0, 1, 0]), ["no", "yes"])[1]
        {'name': 'yes', 'precision': 1.0, 'recall': 0.5, 'f1': 0.6666666666666666, 'support': 2}
    """
    counts = counts_by_class(metric, answer, references, predictions, names)
    found: list[Any] = [] if counts is None else rows_of(*counts)
    return found


def counts_by_class(
    metric: Metric, answer: Answer, references: Any, predictions: Any, names: Sequence[str]
) -> tuple[Counts, list[str]] | None:
    """Count how often each class is true, is found, and is both, and name the classes; None where there are none.

    Args:
        metric: As of `per_class`, like all others.
        answer: What the two are.
        references: The truth.
        predictions: The predictions.
        names: The names of the labels.
    """
    if answer == "tags":
        settings = metric.settings if metric.module == "seqeval" else {}
        return counts_of_entities(references, predictions, **settings)
    if answer not in ("label", "label set"):
        return None
    counts, numbers = counts_of(references, predictions)
    # Answers that are no numbers of labels, such as ratings of a model with one output, are their own names.
    known = dict(enumerate(names)) if max(numbers, default=0) < len(names) else {}
    return counts, [known.get(int(number), f"{number:g}") for number in numbers]


def _interval(statistic: Statistic, count: int, metric: Metric) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of a statistic of examples drawn with replacement."""
    return ends(resampled(statistic, count, metric))
