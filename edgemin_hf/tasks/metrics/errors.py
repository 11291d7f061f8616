"""What metrics share that are a mean of the errors of scores."""

from __future__ import annotations

from abc import ABC
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Values


class MeanOfErrors(LocalMetric, ABC):
    """A mean of the errors of scores: the lower the better."""

    answers: ClassVar[tuple[Answer, ...]] = ("score",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"
    greater_is_better: ClassVar[bool] = False


def differences(references: Arrays, predictions: Arrays) -> Values:
    """Return by how much predictions are off, float64 (examples,)."""
    values: Values = np.asarray(references, dtype=float) - np.asarray(predictions, dtype=float)
    return values
