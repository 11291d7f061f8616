"""Texts as hasty people write them: typos, lower case, capitals."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b

TYPO_SHARE = 0.1
"""Share of the words that get a typo."""
_WORD = re.compile(r"[^\W\d_]{2,}")


def with_typos(text: str) -> str:
    """Return a text in which a tenth of the words has a typo: two neighbours swapped, a letter dropped, or one twice.

    Which words and which typos is decided by a hash of the text and the word's place in it, so that a text is always
    perturbed alike, whatever stands beside it. A word is a run of two letters or more.

    Args:
        text: The text.

    Returns:
        The text; a short one may stay as it is.

    Example:
        >>> from edgemin_hf.data.perturbation import with_typos
        >>> with_typos("please tell me why the card that I ordered last week has not arrived yet")
        'please tell mee why the card that I ordered last week has not arrived yet'
    """
    return _WORD.sub(lambda found: _mistyped(found[0], _drawn(text, found.start())), text)


PERTURBATIONS: Mapping[str, Callable[[str], str]] = {
    "with typos": with_typos,
    "in lower case": str.lower,
    "in upper case": str.upper,
}
"""What becomes of texts, by its name."""


def _drawn(text: str, place: int) -> int:
    """Return a number from a hash of a text and a place in it, 64 bits."""
    return int.from_bytes(blake2b(f"{place} {text}".encode("utf-8", "replace"), digest_size=8).digest())


def _mistyped(word: str, drawn: int) -> str:
    """Return a word with a typo where the number drawn says so."""
    share, rest = drawn % 1_000_000, drawn // 1_000_000
    if share >= TYPO_SHARE * 1_000_000:
        return word
    kind, rest = rest % 3, rest // 3
    swaps = [at for at in range(len(word) - 1) if word[at] != word[at + 1]]  # two that are alike would show nothing
    if kind == 0 and swaps:
        at = swaps[rest % len(swaps)]
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    at = rest % len(word)
    return word[:at] + word[at + 1 :] if kind < 2 else word[: at + 1] + word[at:]
