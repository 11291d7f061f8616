"""How far two models give the same answers, right or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemin_hf.tasks.metrics.base import Answer, Answers
from edgemin_hf.tasks.metrics.known import Metric
from edgemin_hf.tasks.metrics.measurement import measure
from edgemin_hf.utils.records import Record

_BY: Mapping[Answer, str] = {
    "label": "accuracy",
    "label set": "accuracy",
    "score": "pearsonr",
    "ranking": "pearsonr",
    "tags": "seqeval",
    "answers": "exact_match",
}
"""By which metric, with one model's answers as the truth."""


@dataclass(frozen=True)
class Agreement(Record):
    """How far a student answers as its teacher does.

    Attributes:
        metric: By which metric, with the teacher's answers as the truth.
        value: Its value.
        ci95: Both ends of its 95% interval.
    """

    metric: str
    value: float
    ci95: tuple[float, float]


def agreement(metric: Metric, answer: Answer, teacher: Answers, student: Answers) -> Agreement | None:
    """Measure how far a student answers as its teacher does.

    Of labels, sets of labels and answers it is the share that is the same, of scores Pearson's correlation, of tags the
    F1 of entities where the teacher's are taken for true.

    Args:
        metric: The metric that decides, whose settings say what an entity is.
        answer: What both are.
        teacher: The teacher's answers, one an example.
        student: The student's, likewise.

    Returns:
        What was found; None where answers can't be compared, as those on masked tokens, which
        say of the true ones alone.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics import Metric
        >>> from edgemin_hf.tasks.metrics.agreement import agreement
        >>> found = agreement(Metric("f1"), "label", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        >>> found.metric, found.value
        ('accuracy', 0.75)
    """
    if answer not in _BY:
        return None
    settings = metric.settings if metric.module == _BY[answer] == "seqeval" else {}
    truth = [[text] if text else [] for text in teacher] if answer == "answers" else teacher
    found = measure(Metric(_BY[answer], settings), truth, student)
    low, high = found["ci95"]
    return Agreement(found["metric"], found["value"], (low, high))
