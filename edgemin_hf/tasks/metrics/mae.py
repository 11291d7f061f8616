"""The mean absolute error, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics


class Mae(LocalMetric):
    """The mean absolute error of scores: the lower the better."""

    results: ClassVar[Mapping[str, str]] = {"mae": "mean absolute error"}
    answers: ClassVar[tuple[Answer, ...]] = ("score",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"
    greater_is_better: ClassVar[bool] = False

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        truth, found = (np.asarray(side, dtype=float) for side in (references, predictions))
        errors = np.abs(truth - found)
        return lambda weights: {"mae": weights @ errors / weights.sum(axis=1)}
