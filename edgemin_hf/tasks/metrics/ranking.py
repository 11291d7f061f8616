"""What metrics of rankings share: the rows of each group in the order of their scores, and the gain of an order."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, Arrays, LocalMetric, Statistic, Values


class MeanOfGroups(LocalMetric, ABC):
    """A mean over groups, such as the passages of each query, of what the order of their rows is worth.

    A group without a relevant row is left out, since no order of it is right: sentence-transformers' RerankingEvaluator
    does so too. (MS MARCO's script counts 0 where a first search missed what is relevant; here all that is to be ranked
    is given.) Of equal scores the least relevant row comes first: a model that tells nothing apart gains nothing.
    """

    answers: ClassVar[tuple[Answer, ...]] = ("ranking",)
    unit: ClassVar[Literal["%", "×100"]] = "×100"

    @staticmethod
    def examples(references: Arrays) -> int:
        """Return how many groups count."""
        relevance, groups = _sides(references)
        return len(np.unique(groups[relevance > 0]))


def ranked_groups(references: Arrays, predictions: Arrays) -> list[Values]:
    """Return how relevant the rows of each group that counts are, the best scored first; groups by their numbers.

    Args:
        references: Relevance and number of the group, (rows, 2).
        predictions: Scores (rows,).

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics.ranking import ranked_groups
        >>> relevance_and_group = np.array([[1, 7], [0, 7], [0, 8], [2, 9], [0, 7]])
        >>> [order.tolist() for order in ranked_groups(relevance_and_group, np.array([0.5, 0.9, 0.1, 0.0, 0.5]))]
        [[0.0, 0.0, 1.0], [2.0]]
    """
    relevance, groups = _sides(references)
    order = np.lexsort((relevance, -np.asarray(predictions, dtype=float), groups))
    begins = np.flatnonzero(np.diff(groups[order])) + 1
    return [group for group in np.split(relevance[order], begins) if group.max(initial=0) > 0]


def mean_over_groups(values: Sequence[float]) -> Statistic:
    """Return what tells the mean of groups that count so many times each; 0 where there is none."""
    of_groups = np.array(values, dtype=float)
    return lambda weights: weights @ of_groups / np.maximum(weights.sum(axis=1), 1)


def normalised_gain(gains: Sequence[float] | Values, every: Sequence[float] | Values) -> float:
    """Return an order's discounted cumulative gain by that of the best one (Järvelin and Kekäläinen 2002).

    DCG is the sum over ranks i of relevance / log2(i + 1), as trec_eval has it.

    Args:
        gains: Relevance of the first rows, the best first.
        every: That of all that there are, of which as many are taken for the best order.

    Returns:
        From 0 to 1; 0 where nothing is relevant.
    """
    best = sorted((gain for gain in every if gain > 0), reverse=True)[: len(gains)]
    return _gain(gains) / _gain(best) if best else 0.0


def _gain(gains: Sequence[float] | Values) -> float:
    return float(sum(max(gain, 0.0) / np.log2(rank + 1) for rank, gain in enumerate(gains, start=1)))


def _sides(references: Arrays) -> tuple[Values, Values]:
    """Return the relevance of rows and the numbers of their groups, (rows,) each."""
    pairs = np.asarray(references, dtype=float).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
