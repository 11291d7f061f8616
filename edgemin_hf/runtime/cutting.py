"""Texts that are far too long, cut before they are tokenised in earnest: a tokenizer builds all that it cuts off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Text = str | tuple[str, str]
"""A text, or a pair of texts."""

Ids = Callable[[str], list[int]]
"""Gives the ids of a text, without special ones and however many."""

_SPARE = 16
"""Tokens that are left after those that are kept, since the last word of a text that was cut may have others."""


def count_bytes(text: Text) -> int:
    """Count what a tokenizer makes no more tokens of."""
    return sum(len(part.encode(errors="replace")) for part in ([text] if isinstance(text, str) else text))


def cut(text: Text, ids_of: Ids, max_length: int, left: bool = False) -> Text:
    """Cut a text or a pair so that the tokenizer's own cut gives the same ids; of a pair the longer text first.

    Args:
        text: The text, or the pair.
        ids_of: The tokenizer.
        max_length: Tokens after which it cuts.
        left: Whether it cuts the beginning.

    Returns:
        The text or pair, or the part of it that is read.

    Example:
        >>> from edgemin_hf.runtime.cutting import cut
        >>> len(cut("my " * 100_000, lambda text: [1] * len(text.split()), max_length=4)) < 100
        True
    """
    if count_bytes(text) <= 4 * max_length:
        return text
    if isinstance(text, str):
        return _beginning(text, ids_of(text), max_length, ids_of, left)[0]
    first, second = map(ids_of, text)
    # Which of the two has the odd token depends on which is the longer one: that one stays so.
    if len(first) > len(second):
        end, tokens = _beginning(text[1], second, max_length, ids_of, left)
        return _beginning(text[0], first, max(max_length, tokens + 1), ids_of, left)[0], end
    start, tokens = _beginning(text[0], first, max_length, ids_of, left)
    return start, _beginning(text[1], second, max(max_length, tokens), ids_of, left)[0]


def _beginning(text: str, ids: Sequence[int], keep: int, ids_of: Ids, left: bool) -> tuple[str, int]:
    """Return a part of a text that begins with its own first tokens (ends with its last, where the left is cut).

    Args:
        text: The text.
        ids: Its ids.
        keep: How many of them the part must have.
        ids_of: As of `cut`.
        left: Likewise.

    Returns:
        The part, or all of the text, and the number of its tokens.
    """
    size = keep + _SPARE
    while size < len(ids):
        characters = -(-len(text) * size // len(ids))
        part = text[-characters:] if left else text[:characters]
        found = ids_of(part)
        if len(found) >= keep and (found[-keep:] == ids[-keep:] if left else found[:keep] == ids[:keep]):
            return part, len(found)
        size *= 2
    return text, len(ids)
