"""Accuracy, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistics


class Accuracy(LocalMetric):
    """The share of hits; of label sets those of which every label is right."""

    results: ClassVar[Mapping[str, str]] = {"accuracy": "accuracy"}
    answers: ClassVar[tuple[Answer, ...]] = ("label", "label set")

    @staticmethod
    def statistic(references: Arrays, predictions: Arrays) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        hits = np.asarray(references) == np.asarray(predictions)
        hits = hits if hits.ndim == 1 else hits.all(axis=1)
        return lambda weights: {"accuracy": weights @ hits / weights.sum(axis=1)}
