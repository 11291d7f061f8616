"""Pearson's correlation, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics
from edgemin_hf.tasks.metrics.correlation import correlation


class Pearsonr(LocalMetric):
    """Pearson's correlation."""

    results: ClassVar[Mapping[str, str]] = {"pearsonr": "Pearson correlation"}
    answers: ClassVar[tuple[Answer, ...]] = ("score",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        truth, found = (np.asarray(side, dtype=float)[None] for side in (references, predictions))
        return lambda weights: {"pearsonr": correlation(truth, found, weights)}
