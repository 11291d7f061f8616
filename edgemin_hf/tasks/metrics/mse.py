"""The mean squared error, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics


class Mse(LocalMetric):
    """The mean squared error of scores: the lower the better."""

    results: ClassVar[Mapping[str, str]] = {"mse": "mean squared error"}
    answers: ClassVar[tuple[Answer, ...]] = ("score",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"
    greater_is_better: ClassVar[bool] = False

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        truth, found = (np.asarray(side, dtype=float) for side in (references, predictions))
        errors = (truth - found) ** 2
        return lambda weights: {"mse": weights @ errors / weights.sum(axis=1)}
