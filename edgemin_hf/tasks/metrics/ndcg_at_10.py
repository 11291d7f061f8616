"""The normalised discounted cumulative gain of the first ten rows, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from edgemin_hf.tasks.metrics.base import Arrays, Statistics
from edgemin_hf.tasks.metrics.ranking import MeanOfGroups, mean_over_groups, normalised_gain, ranked_groups


class NdcgAt10(MeanOfGroups):
    """The mean over groups of the nDCG of the ten rows that are scored best."""

    results: ClassVar[Mapping[str, str]] = {"ndcg_at_10": "nDCG@10"}

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        orders = ranked_groups(references, predictions)
        mean = mean_over_groups([normalised_gain(gains[:10], gains) for gains in orders])
        return lambda weights: {"ndcg_at_10": mean(weights)}
