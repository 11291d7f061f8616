"""Spearman's rank correlation, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics
from edgemin_hf.tasks.metrics.correlation import correlation, ranks


class Spearmanr(LocalMetric):
    """Spearman's rank correlation; equal values share their mean rank."""

    results: ClassVar[Mapping[str, str]] = {"spearmanr": "Spearman correlation"}
    answers: ClassVar[tuple[Answer, ...]] = ("score",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        return lambda weights: {
            "spearmanr": correlation(ranks(references, weights), ranks(predictions, weights), weights)
        }
