"""The choice of the margin above which a question has no answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_threshold(margins: NDArray[np.float64], gains: NDArray[np.float64], answerable: NDArray[np.bool_]) -> float:
    """Return the margin above which "no answer" is said, so that the mean score is best: SQuAD v2.0's own search.

    Args:
        margins: By how much "no answer" is better than the best span (questions,).
        gains: What the best span is worth, such as its F1 (questions,).
        answerable: Which questions have an answer (questions,).

    Returns:
        The threshold, one of the margins: of equally good ones the least, and just below all of them where it is best
        never to answer.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.no_answer import best_threshold
        >>> margins, gains = np.array([-3.0, -1.0, 1.0]), np.array([1.0, 1.0, 0.0])
        >>> best_threshold(margins, gains, np.array([True, True, False]))
        -1.0
    """
    order = np.argsort(margins, kind="stable")
    margins, steps = margins[order], np.where(answerable, gains, -1.0)[order]
    last = np.append(margins[1:] != margins[:-1], True)  # of equal margins all are answered, or none
    totals = np.where(last & np.isfinite(margins), np.cumsum(steps), -np.inf)
    best = int(totals.argmax())
    return float(margins[best] if totals[best] > 0 else np.nextafter(margins[0], -np.inf))
