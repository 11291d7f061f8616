"""The mean absolute error, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Arrays, Statistics
from edgemin_hf.tasks.metrics.errors import MeanOfErrors, differences


class Mae(MeanOfErrors):
    """The mean absolute error of scores."""

    results: ClassVar[Mapping[str, str]] = {"mae": "mean absolute error"}

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        errors = np.abs(differences(references, predictions))
        return lambda weights: {"mae": weights @ errors / weights.sum(axis=1)}
