"""Recall, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics
from edgemin_hf.tasks.metrics.counts import Average, average_of


class Recall(LocalMetric):
    """Recall: the share of what is true that is found."""

    results: ClassVar[Mapping[str, str]] = {"recall": "recall"}
    answers: ClassVar[tuple[Answer, ...]] = ("label", "label set")

    @staticmethod
    def statistic(
        references: Arrays, predictions: Arrays, average: Average = "binary", pos_label: int = 1
    ) -> Statistics:
        """Return its values. See `LocalMetric.statistic` and `average_of`."""
        part = average_of("recall", references, predictions, average, pos_label)
        return lambda weights: {"recall": part(weights)}
