"""The pseudo-perplexity of texts, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Statistics, Values, total
from edgemin_hf.tasks.metrics.masked_tokens import MaskedToken, OfMaskedTokens, sums_of_texts


class PseudoPerplexity(OfMaskedTokens):
    """The pseudo-perplexity of a masked language model (Salazar et al. 2020, arXiv 1910.14659, equation 3).

    Of texts W with N tokens together it is exp(-1/N sum PLL(W)), where PLL(W) = sum_t log P(w_t | W without w_t): each
    token is replaced by the mask token in turn, all others are seen. Special tokens are neither masked nor counted;
    what `max_length` cuts off is not there. The lower the better.
    """

    results: ClassVar[Mapping[str, str]] = {"pseudo_perplexity": "pseudo-perplexity"}
    unit: ClassVar[Literal["%", "×100", ""]] = ""
    greater_is_better: ClassVar[bool] = False

    @staticmethod
    def statistic(references: Sequence[Any], predictions: Sequence[Sequence[MaskedToken]]) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        sums = sums_of_texts(predictions, 1, alone=True)

        def values(weights: Values) -> dict[str, Values]:
            found = total(sums, weights)
            return {"pseudo_perplexity": np.exp(-found[:, 0] / np.maximum(found[:, 1], 1))}

        return values
