"""Bootstrap resamples of examples, and the 95% intervals that they give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from edgemin_hf.tasks.metrics.base import Statistic, Values
from edgemin_hf.tasks.metrics.known import Metric

RESAMPLES = 2000
OTHERS_RESAMPLES = 200
"""Resamples of a module that does not ship, each of which it must compute anew."""
_BATCH_VALUES = 1_000_000
"""Examples of the resamples that are held in memory at once."""


def resampled(statistic: Statistic, count: int, metric: Metric, seed: int | Sequence[int] = 0) -> Values:
    """Return a statistic of examples drawn with replacement, always the same ones (Efron 1979).

    Args:
        statistic: Tells a value, or several, of examples that count so many times: (resamples, examples) -> (...,
            resamples).
        count: Number of examples.
        metric: What is computed, which decides how many resamples there are.
        seed: Of the draws.

    Returns:
        Its values, float64 (..., resamples).
    """
    resamples = RESAMPLES if metric.local else OTHERS_RESAMPLES
    if count == 1:  # which SciPy refuses: all resamples are the same
        return np.repeat(statistic(np.ones((1, 1))), resamples, axis=-1)

    def of_drawn(drawn: NDArray[np.int64], axis: int) -> Values:
        rows = np.arange(len(drawn))[:, None] * count
        return statistic(np.bincount((drawn + rows).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float))

    values: Values = bootstrap(
        (np.arange(count),),
        of_drawn,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _BATCH_VALUES // count),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    return values


def ends(values: Values) -> tuple[float, float]:
    """Return the 2.5th and the 97.5th percentile of resampled values (resamples,)."""
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
