"""What two models are worth on each group of examples, and how far apart the groups are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.tasks.metrics.base import Answers, Values
from edgemin_hf.tasks.metrics.known import Metric
from edgemin_hf.tasks.metrics.measurement import measure
from edgemin_hf.tasks.metrics.modules import examples_of, statistic_of
from edgemin_hf.tasks.metrics.resampling import ends, resampled
from edgemin_hf.utils.records import Record

LEAST = 10
"""Examples of a group that counts in a gap: one of a single example would be the best or the worst by chance alone."""


@dataclass(frozen=True)
class Estimate(Record):
    """A value with its 95% interval."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Group(Record):
    """A group of examples.

    Attributes:
        name: Its name.
        n: How many they are.
        teacher: What the teacher is worth on them; None where there is none.
        student: What the student is.
    """

    name: str
    n: int
    teacher: Estimate | None
    student: Estimate


@dataclass(frozen=True)
class Slices(Record):
    """The groups by one column.

    Attributes:
        by: The column.
        metric: Name of the metric.
        groups: The groups.
        teacher_gap: By how much the teacher's best group is above its worst, of those of ten examples or more; None
            where there is no teacher, or one such group alone.
        student_gap: The same of the student.
        widened: By how much the student's gap is wider than the teacher's.
    """

    by: str
    metric: str
    groups: tuple[Group, ...]
    teacher_gap: Estimate | None = None
    student_gap: Estimate | None = None
    widened: Estimate | None = None

    @property
    def compared(self) -> list[Group]:
        """The groups that count in the gaps."""
        return [group for group in self.groups if group.n >= LEAST]


def slices(
    by: str,
    values: Sequence[str],
    metric: Metric,
    references: Answers,
    teacher: Answers | None,
    student: Answers,
    order: Sequence[str] = (),
) -> Slices:
    """Measure a teacher and its student on each group.

    The intervals of gaps are from resamples of each group's examples, the same for both models. Which groups are the
    best and the worst is chosen once, by the values: of groups that do not differ there is a gap by chance, too. Groups
    of fewer than ten examples are measured, and do not count in gaps.

    Args:
        by: Name of the column.
        values: The name of each example's group.
        metric: The metric.
        references: The truth, one an example.
        teacher: The teacher's predictions, likewise; None where there is none.
        student: The student's.
        order: The names of the groups in their order; without them it is that in which they are first met.

    Returns:
        The groups.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric
        >>> from edgemin_hf.tasks.metrics.slices import slices
        >>> truth, student = np.repeat([1, 1], 50), np.repeat([1, 0], 50)
        >>> found = slices("dialect", ["north"] * 50 + ["south"] * 50, Metric("accuracy"), truth, truth, student)
        >>> [(group.name, group.student.value) for group in found.groups], found.widened.value
        ([('north', 1.0), ('south', 0.0)], 1.0)
    """
    names = list(order) or list(dict.fromkeys(values))
    rows = [[row for row, value in enumerate(values) if value == name] for name in names]
    truths, ours = [_of(references, some) for some in rows], [_of(student, some) for some in rows]
    theirs = None if teacher is None else [_of(teacher, some) for some in rows]
    groups = [
        Group(
            name,
            len(some),
            None if theirs is None else _estimate(metric, truths[number], theirs[number]),
            _estimate(metric, truths[number], ours[number]),
        )
        for number, (name, some) in enumerate(zip(names, rows, strict=True))
    ]
    found = Slices(by, metric.name, tuple(groups))
    compared = [number for number, some in enumerate(rows) if len(some) >= LEAST]
    if len(compared) < 2:
        return found
    our_gaps = _gaps(metric, truths, ours, compared)
    if theirs is None:
        return replace(found, student_gap=_told(our_gaps))
    their_gaps = _gaps(metric, truths, theirs, compared)
    widened = _told(our_gaps - their_gaps)
    return replace(found, teacher_gap=_told(their_gaps), student_gap=_told(our_gaps), widened=widened)


def _of(answers: Answers, rows: Sequence[int]) -> Answers:
    return answers[np.array(rows)] if isinstance(answers, np.ndarray) else [answers[row] for row in rows]


def _estimate(metric: Metric, truth: Answers, predictions: Answers) -> Estimate:
    found = measure(metric, truth, predictions)
    low, high = found["ci95"]
    return Estimate(found["value"], (low, high))


def _gaps(
    metric: Metric, truths: Sequence[Answers], predictions: Sequence[Answers], compared: Sequence[int]
) -> NDArray[np.float64]:
    """Return the gap between the best and the worst of some groups: the measured one, then that of each resample."""
    values: list[Values] = []
    for number in compared:
        truth, some = truths[number], predictions[number]
        statistic, count = statistic_of(metric, truth, some), examples_of(metric, truth)
        whole = statistic(np.ones((1, count)))
        values.append(np.concatenate([whole, resampled(statistic, count, metric, seed=(0, number))]))
    measured = [value[0] for value in values]
    gap: NDArray[np.float64] = values[int(np.argmax(measured))] - values[int(np.argmin(measured))]
    return gap


def _told(gap: NDArray[np.float64]) -> Estimate:
    return Estimate(float(gap[0]), ends(gap[1:]))
