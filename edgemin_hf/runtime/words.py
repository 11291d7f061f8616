"""Which piece of which window stands for which word of a text that is longer than a model reads."""

from __future__ import annotations

from collections.abc import Sequence

NO_WORD = -1
"""The number of the word of a token that stands for none."""


def aligned(parts: Sequence[Sequence[int | None]], stride: int) -> list[tuple[list[int], list[int]]]:
    """Return the word numbers of first and of further pieces in each window of a text.

    Args:
        parts: For each window the number of each token's word in the whole text; None of special tokens.
        stride: Tokens that two windows have in common.

    Returns:
        For each window two lists, an entry a token: the number of the word whose first piece it is, in the window where
        that word has the most context, else `NO_WORD`; and likewise of pieces that go on with such a word.

    Example:
        >>> from edgemin_hf.runtime.words import aligned
        >>> aligned([[0, 1, 1, 2], [2, 3]], stride=1)
        [([0, 1, -1, 2], [-1, -1, 1, -1]), ([-1, 3], [-1, -1])]
    """
    first: dict[int, int] = {}  # of each word, numbered through the text
    best: dict[int, tuple[int, int]] = {}  # of each word: the context of its first piece, and less the window
    pieces: list[list[tuple[int, int, int]]] = []
    start = 0
    for number, part in enumerate(parts):
        places = [(place, word) for place, word in enumerate(part) if word is not None]
        pieces.append([(start + index, place, word) for index, (place, word) in enumerate(places)])
        for index, (_, word) in enumerate(places):
            if first.setdefault(word, start + index) == start + index:
                context = min(index, len(places) - 1 - index)
                best[word] = max(best.get(word, (-1, 0)), (context, -number))
        start += len(places) - stride
    found = [([NO_WORD] * len(part), [NO_WORD] * len(part)) for part in parts]
    for number, of_window in enumerate(pieces):
        for piece, place, word in of_window:
            if best[word][1] == -number:
                found[number][piece != first[word]][place] = word
    return found
