"""The mean reciprocal rank of the first relevant row, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Arrays, Statistics, Values
from edgemin_hf.tasks.metrics.ranking import MeanOfGroups, mean_over_groups, ranked_groups


class MrrAt10(MeanOfGroups):
    """The mean over groups of 1 by the rank of the first relevant row; 0 where that is none of the first ten."""

    results: ClassVar[Mapping[str, str]] = {"mrr_at_10": "MRR@10"}

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        orders = ranked_groups(references, predictions)
        mean = mean_over_groups([_reciprocal_rank(gains[:10]) for gains in orders])
        return lambda weights: {"mrr_at_10": mean(weights)}


def _reciprocal_rank(gains: Values) -> float:
    relevant = np.flatnonzero(gains > 0)
    return 1 / (1 + int(relevant[0])) if len(relevant) else 0.0
