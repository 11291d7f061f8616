"""What each class gained or lost from one model to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Values
from edgemin_hf.tasks.metrics.counts import Counts
from edgemin_hf.tasks.metrics.known import Metric
from edgemin_hf.tasks.metrics.measurement import counts_by_class
from edgemin_hf.tasks.metrics.resampling import resampled
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class ClassChange(Record):
    """What became of one class: a label, or a type of entities.

    Attributes:
        name: Its name.
        support: How often it is true.
        teacher: The teacher's F1.
        student: The student's F1.
        change: By how much the student's is higher.
        ci95: Both ends of the 95% interval of that.
    """

    name: str
    support: int
    teacher: float
    student: float
    change: float
    ci95: tuple[float, float]


def class_changes(
    metric: Metric, answer: Answer, references: Any, teacher: Any, student: Any, names: Sequence[str]
) -> list[ClassChange]:
    """Return what each class that occurs lost or gained in F1, the greatest loss first.

    The intervals are those of a paired bootstrap: both models are measured on the same resamples of the examples.

    Args:
        metric: The metric that decides, whose settings say what an entity is.
        answer: What truth and predictions are.
        references: The truth, one an example.
        teacher: The teacher's predictions, likewise.
        student: The student's, likewise.
        names: The names of the labels, by number.

    Returns:
        The changes; none where answers have no classes, or the truth names none, such as no entity.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric
        >>> from edgemin_hf.tasks.metrics.class_changes import class_changes
        >>> truth, wrong = np.repeat([0, 1, 2], 40), np.repeat([0, 2, 2], 40)
        >>> first = class_changes(Metric("accuracy"), "label", truth, truth, wrong, ["card", "loan", "fee"])[0]
        >>> first.name, first.teacher, first.student, first.ci95
        ('loan', 1.0, 0.0, (-1.0, -1.0))
    """
    sides = [counts_by_class(metric, answer, references, side, names) for side in (teacher, student)]
    (theirs, their_names), (ours, our_names) = (side or (None, []) for side in sides)
    if theirs is None or ours is None:
        return []
    support = dict(zip(their_names, np.asarray(theirs.truth.sum(axis=0)).ravel(), strict=True))
    occurring = [name for name in their_names if support[name] > 0]  # which both have a column of
    if not occurring:
        return []
    counts = [
        _columns(side, [known.index(name) for name in occurring])
        for side, known in ((theirs, their_names), (ours, our_names))
    ]

    def f1(weights: Values) -> Values:
        """Return the F1 of both models' classes, (models, classes, resamples)."""
        return np.stack([side.total(weights).part("f1").T for side in counts])

    def change(weights: Values) -> Values:
        before, after = f1(weights)
        difference: Values = after - before
        return difference

    examples = theirs.truth.shape[0]
    values = f1(np.ones((1, examples)))[..., 0].T.tolist()
    ends = np.percentile(resampled(change, examples, metric), (2.5, 97.5), axis=-1).T.tolist()
    told = [
        ClassChange(name, int(support[name]), before, after, after - before, (low, high))
        for name, (before, after), (low, high) in zip(occurring, values, ends, strict=True)
    ]
    return sorted(told, key=lambda one: (one.change, one.name))


def _columns(counts: Counts, columns: Sequence[int]) -> Counts:
    return Counts(*(part[:, columns] for part in counts))
