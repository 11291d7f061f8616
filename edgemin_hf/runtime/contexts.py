"""Questions and contexts as a model reads them: what is cut, where windows go on, which characters tokens cover."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from edgemin_hf.runtime.cutting import count_bytes

SPECIAL = 4
"""Special tokens around a pair of texts, at most."""

SHORTEST = 2 * SPECIAL + 2
"""Tokens of the shortest window that goes on in its context."""

Places = tuple[NDArray[np.int64], NDArray[np.int64]]
"""For each place in a text (characters + 1,) the next one before a visible character, and the last after one."""


def longest_stride(max_length: int) -> int:
    """Return the longest stride with which a window goes on in its context, whatever the question."""
    return max_length - max_length // 2 - SPECIAL - 1


def shortened(question: str, longest: int, offsets_of: Callable[[str], Sequence[tuple[int, int]]]) -> str:
    """Cut a question after some tokens.

    Args:
        question: The question.
        longest: Tokens that it may have.
        offsets_of: Gives the characters that each token of a text covers, without special ones.
    """
    if count_bytes(question) <= longest:
        return question
    offsets = offsets_of(question)
    while len(offsets) > longest:  # what is left of a word may have more tokens than it had in it
        question = question[: min(offsets[longest - 1][1], len(question) - 1)]
        offsets = offsets_of(question)
    return question


def without_space(text: str) -> Places:
    """Return where the visible characters of a text are; see `Places`."""
    place = np.arange(len(text) + 1)
    space = np.array([character.isspace() for character in text], dtype=bool)
    after = np.where(np.append(space, False), len(text), place)
    before = np.where(np.append(True, space), 0, place)
    return np.minimum.accumulate(after[::-1])[::-1], np.maximum.accumulate(before)


def context_offsets(window: Encoding, places: Places, context_first: bool) -> NDArray[np.int64]:
    """Return the characters of the context that each token covers, int64 (length, 2).

    Args:
        window: A question and a part of its context.
        places: `without_space` of the context.
        context_first: Whether the context stands before the question.

    Returns:
        Without white space around them; (0, 0) of tokens outside of the context.
    """
    own = np.array([part == (0 if context_first else 1) for part in window.sequence_ids])[:, None]
    after, before = places
    offsets = np.array(window.offsets) * own
    found: NDArray[np.int64] = np.stack([after[offsets[:, 0]], before[offsets[:, 1]]], axis=1) * own
    return found
