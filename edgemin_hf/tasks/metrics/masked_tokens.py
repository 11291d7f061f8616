"""What metrics of masked tokens share."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, LocalMetric, Values

MaskedToken = Sequence[float]
"""What a model says of one: whether its likeliest token is the true one (1 or 0), the true one's log-probability, and
whether it alone was masked (1) or one of several (0)."""


class OfMaskedTokens(LocalMetric, ABC):
    """A metric of masked tokens; it reads what models say of the true ones, and these only to tell how many there are.

    Two models whose vocabularies differ divide a text into other tokens: their values are not to be compared.
    """

    answers: ClassVar[tuple[Answer, ...]] = ("masked tokens",)

    def _compute(self, predictions: Any, references: Any, **settings: Any) -> dict[str, float]:
        """Compute what `evaluate` gives."""
        found = self.statistic(references, predictions, **settings)(np.ones((1, len(predictions))))
        return {name: float(values[0]) for name, values in found.items()}


def sums_of_texts(predictions: Sequence[Sequence[MaskedToken]], part: int, *, alone: bool) -> Values:
    """Return for each text the sum of a part of what is said of its tokens, and how many they are: (texts, 2).

    Args:
        predictions: What a model says of each text's tokens.
        part: 0 for the hits, 1 for the log-probabilities.
        alone: Whether tokens count that alone were masked, or those that were masked together.
    """
    counted = [[token[part] for token in tokens if bool(token[2]) is alone] for tokens in predictions]
    return np.array([[sum(values), len(values)] for values in counted], dtype=float).reshape(-1, 2)
