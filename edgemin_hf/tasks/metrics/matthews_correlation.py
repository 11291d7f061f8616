"""Matthews' correlation, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics, Values
from edgemin_hf.tasks.metrics.counts import counts_of


class MatthewsCorrelation(LocalMetric):
    """Matthews' correlation of two or more labels: R_K of Gorodkin (2004), for two the phi coefficient."""

    results: ClassVar[Mapping[str, str]] = {"matthews_correlation": "Matthews correlation"}
    answers: ClassVar[tuple[Answer, ...]] = ("label",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        counts, _ = counts_of(references, predictions)

        def values(weights: Values) -> dict[str, Values]:
            truth, found, hits = counts.total(weights)
            examples = weights.sum(axis=1)
            covariance = examples * hits.sum(axis=1) - (truth * found).sum(axis=1)
            variances = [examples**2 - (count**2).sum(axis=1) for count in (truth, found)]
            return {"matthews_correlation": covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1))}

        return values
