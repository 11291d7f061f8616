"""The search for answers: which spans of a context a model's start and end logits like best.

A context that is longer than the model reads is read in several windows. A span's score is the sum of its first token's
start logit and its last token's end logit, as in BERT (arXiv 1810.04805, section 4.2). "No answer" has the score of
[CLS] as both, the least over all windows (section 4.3, and `run_qa.py` of `transformers`): only where every window says
so there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


class Span(NamedTuple):
    """A span of a context that may be the answer.

    Attributes:
        start: The context's character that it begins with.
        end: The one after its last.
        score: The sum of its start logit and its end logit.
    """

    start: int
    end: int
    score: float


class Found(NamedTuple):
    """What was found for a question.

    Attributes:
        spans: The best spans, the best first; none where its context has no token.
        no_answer: The score of there being no answer.
    """

    spans: list[Span]
    no_answer: float

    @property
    def margin(self) -> float:
        """By how much "no answer" is better than the best span."""
        return self.no_answer - self.spans[0].score if self.spans else float("inf")


def best_spans(logits: NDArray[np.float32], offsets: NDArray[np.int64], count: int, max_length: int) -> list[Span]:
    """Return the best spans of a window, the best first.

    Args:
        logits: Start and end logits (length, 2).
        offsets: The characters of the context that each token covers (length, 2), of tokens outside of it (0, 0).
        count: How many spans at most.
        max_length: Tokens of a span at most.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.runtime.answer_spans import best_spans
        >>> offsets = np.array([[0, 0], [0, 2], [3, 7], [8, 12]])  # [CLS] in June 2011
        >>> logits = np.array([[0, 0], [1, 0], [4, 1], [0, 3]])
        >>> [tuple(span) for span in best_spans(logits, offsets, count=2, max_length=30)]
        [(3, 12, 7.0), (3, 7, 5.0)]
    """
    inside = np.flatnonzero(offsets[:, 1])
    if not len(inside):
        return []
    own = slice(inside[0], inside[-1] + 1)
    start, end = np.asarray(logits[own], dtype=np.float64).T
    begins, finishes = offsets[own].T
    longest = min(max_length, len(start))
    padded = np.concatenate([end, np.full(longest - 1, -np.inf)])
    scores = start[:, None] + sliding_window_view(padded, longest)  # (first token, further tokens)
    # White space alone, such as ModernBERT's tokens of several blanks, is no answer.
    reached = sliding_window_view(np.concatenate([finishes, np.zeros(longest - 1, finishes.dtype)]), longest)
    scores[reached <= begins[:, None]] = -np.inf
    flat = scores.ravel()
    best = np.argpartition(-flat, min(count, len(flat)) - 1)[:count]
    best = best[np.lexsort((best, -flat[best]))]
    return [
        Span(int(begins[first]), int(finishes[first + more]), float(scores[first, more]))
        for first, more in zip(*np.unravel_index(best, scores.shape), strict=True)
        if np.isfinite(scores[first, more])
    ]


def find_answers(
    outputs: Iterable[NDArray[np.float32]], windows: Iterable[Mapping[str, Any]], count: int, max_length: int
) -> list[Found]:
    """Find the best spans for each question, over all windows of its context.

    A span that lies in several windows has the best of its scores.

    Args:
        outputs: Start and end logits of each window (length, 2).
        windows: Each one's "example", the number of its question, and "offsets", as of `best_spans`.
        count: How many spans of a question at most.
        max_length: Tokens of a span at most.

    Returns:
        What was found for each question, in the order of their numbers.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.runtime.answer_spans import find_answers
        >>> windows = [{"example": 0, "offsets": [[0, 0], [0, 2]]}, {"example": 0, "offsets": [[0, 0], [3, 7]]}]
        >>> found = find_answers([np.array([[2, 1], [1, 1]]), np.array([[1, 1], [3, 2]])], windows, 20, 30)
        >>> tuple(found[0].spans[0]), found[0].no_answer, found[0].margin
        ((3, 7, 5.0), 2.0, -3.0)
    """
    scores: dict[int, dict[tuple[int, int], float]] = {}
    nothing: dict[int, float] = {}
    for logits, window in zip(outputs, windows, strict=True):
        example = window["example"]
        spans = scores.setdefault(example, {})
        for span in best_spans(logits, np.asarray(window["offsets"]), count, max_length):
            place = (span.start, span.end)
            spans[place] = max(span.score, spans.get(place, -np.inf))
        nothing[example] = min(float(np.sum(logits[0], dtype=np.float64)), nothing.get(example, np.inf))
    ranked = {example: sorted(scores[example].items(), key=_best_first)[:count] for example in sorted(scores)}
    return [Found([Span(*place, score) for place, score in best], nothing[own]) for own, best in ranked.items()]


def _best_first(item: tuple[tuple[int, int], float]) -> tuple[float, tuple[int, int]]:
    place, score = item
    return -score, place
