"""Correlation and ranks of examples that count so many times each."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from edgemin_hf.tasks.metrics.base import Arrays, Values, total

_ROUNDING = 1e-13
"""Share of its size below which a variance is rounding alone."""


def correlation(first: Values, second: Values, weights: Values) -> Values:
    """Compute Pearson's correlation; 0 of what is constant.

    Args:
        first: Values (1, examples), or others of each resample (resamples, examples).
        second: Likewise.
        weights: How many times each example counts, float64 (resamples, examples).

    Returns:
        The correlations, float64 (resamples,).
    """
    count = weights.sum(axis=1, keepdims=True)
    first, second = (side - side.mean(axis=1, keepdims=True) for side in (first, second))
    # The sums of one resample's own deviations; those from the mean of all examples differ from them by little.
    first, second = (side - (side * weights).sum(axis=1, keepdims=True) / count for side in (first, second))
    covariance = np.einsum("rn,rn,rn->r", first, second, weights)
    product = np.ones(len(weights))
    for side in (first, second):
        variance = np.einsum("rn,rn,rn->r", side, side, weights)
        largest = np.abs(side).max(axis=1, initial=0) ** 2 * count[:, 0]
        product *= np.where(variance > _ROUNDING * largest, variance, 0)
    values: Values = covariance / np.sqrt(np.where(product > 0, product, np.inf))
    return values


def ranks(values: Arrays, weights: Values) -> Values:
    """Rank values in each resample, equal ones by their mean rank -> float64 (resamples, examples).

    What stands there `weight` times, after `before` others, has the mean rank before + (weight + 1) / 2.
    """
    distinct, places = np.unique(np.asarray(values, dtype=float), return_inverse=True)
    examples = len(places)
    each = csr_array((np.ones(examples), (np.arange(examples), places)), shape=(examples, len(distinct)))
    counts = total(each, weights)
    of_values: Values = counts.cumsum(axis=1) - (counts - 1) / 2
    return of_values[:, places]
