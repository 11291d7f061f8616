"""The mean squared error, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgemin_hf.tasks.metrics.base import Arrays, Statistics
from edgemin_hf.tasks.metrics.errors import MeanOfErrors, differences


class Mse(MeanOfErrors):
    """The mean squared error of scores."""

    results: ClassVar[Mapping[str, str]] = {"mse": "mean squared error"}

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        errors = differences(references, predictions) ** 2
        return lambda weights: {"mse": weights @ errors / weights.sum(axis=1)}
