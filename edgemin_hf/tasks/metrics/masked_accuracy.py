"""The accuracy of masked tokens, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Statistics, Values, total
from edgemin_hf.tasks.metrics.masked_tokens import MaskedToken, OfMaskedTokens, sums_of_texts


class MaskedAccuracy(OfMaskedTokens):
    """The share of the tokens masked together in a text that are the likeliest ones in their places, of all texts."""

    results: ClassVar[Mapping[str, str]] = {"masked_accuracy": "masked accuracy"}

    @staticmethod
    def statistic(references: Sequence[Any], predictions: Sequence[Sequence[MaskedToken]]) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        sums = sums_of_texts(predictions, 0, alone=False)

        def values(weights: Values) -> dict[str, Values]:
            found = total(sums, weights)
            return {"masked_accuracy": found[:, 0] / np.maximum(found[:, 1], 1)}

        return values
