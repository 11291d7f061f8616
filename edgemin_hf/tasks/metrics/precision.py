"""Precision, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics
from edgemin_hf.tasks.metrics.counts import Average, average_of


class Precision(LocalMetric):
    """Precision: the share of what is found that is true."""

    results: ClassVar[Mapping[str, str]] = {"precision": "precision"}
    answers: ClassVar[tuple[Answer, ...]] = ("label", "label set")

    @staticmethod
    def statistic(
        references: Arrays, predictions: Arrays, average: Average = "binary", pos_label: int = 1
    ) -> Statistics:
        """Return its values. See `LocalMetric.statistic` and `average_of`."""
        part = average_of("precision", references, predictions, average, pos_label)
        return lambda weights: {"precision": part(weights)}
