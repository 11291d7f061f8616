"""The doubt up to which questions are best answered, where some have no answer: SQuAD v2.0's own search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.tasks.metrics.base import Values


def best_cut(doubts: Values, gains: Values, *, together: bool) -> tuple[float, float | None]:
    """Return what is gained at best by answering the questions of least doubt, and the doubt of the last of these.

    Args:
        doubts: How much speaks for there being no answer (questions,); what is infinite is never answered.
        gains: What answering a question gains against saying that it has none (questions,).
        together: Whether of equal doubts all are answered or none; else one after the other, as in SQuAD's script.

    Returns:
        The sum of the gains, and the doubt: of equally good ones the least, None where it is best never to answer.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics.no_answer import best_cut
        >>> best_cut(np.array([0.1, 0.9, 0.2]), np.array([1.0, -1.0, 0.5]), together=True)
        (1.5, 0.2)
    """
    if not len(doubts):
        return 0.0, None
    order = np.argsort(doubts, kind="stable")
    doubts, sums = doubts[order], gains[order].cumsum()
    ends = np.append(doubts[1:] != doubts[:-1], True) | (not together)
    sums = np.where(ends & np.isfinite(doubts), sums, -np.inf)
    best = int(sums.argmax())
    return (float(sums[best]), float(doubts[best])) if sums[best] > 0 else (0.0, None)


def best_threshold(margins: NDArray[np.float64], gains: NDArray[np.float64], answerable: NDArray[np.bool_]) -> float:
    """Return the margin above which "no answer" is said, so that the mean score is best.

    Args:
        margins: By how much "no answer" is better than the best span (questions,).
        gains: What the best span is worth, such as its F1 (questions,).
        answerable: Which questions have an answer (questions,).

    Returns:
        The threshold, one of the margins: of equally good ones the least, and just below all of them where it is best
        never to answer.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics.no_answer import best_threshold
        >>> margins, gains = np.array([-3.0, -1.0, 1.0]), np.array([1.0, 1.0, 0.0])
        >>> best_threshold(margins, gains, np.array([True, True, False]))
        -1.0
    """
    _, found = best_cut(margins, np.where(answerable, gains, -1.0), together=True)
    return float(np.nextafter(margins.min(), -np.inf)) if found is None else found
