"""Spans of characters in a text, such as annotation tools write them, as tags of its words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

_JOINERS = "\u200c\u200d"
"""What joins letters, or keeps them from joining, within a word."""


class Span(NamedTuple):
    """A part of a text: its first character, the one after its last, and what it is."""

    start: int
    end: int
    label: str


def words_of(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the words of a text begin and end: letters, digits and marks together, any other character alone.

    Example:
        >>> from edgemin_hf.data.spans import words_of
        >>> [("(Zoë's.)"[start:end]) for start, end in words_of("(Zoë's.)")]
        ['(', 'Zoë', "'", 's', '.', ')']
    """
    start = 0
    for end, character in enumerate(text):
        if _in_word(character):
            continue
        if start < end:
            yield start, end
        if not character.isspace():
            yield end, end + 1
        start = end + 1
    if start < len(text):
        yield start, len(text)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or character in _JOINERS or unicodedata.category(character)[0] == "M"


def spans_of(text: str, values: object) -> list[Span]:
    """Return the spans of a text, in their order.

    Args:
        text: The text.
        values: A list of {start, end, label}: numbers of characters (code points), and a name.

    Raises:
        ValueError: If one is no span of the text, cuts a word, or overlaps another; one line.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"spans {values!r}; expected: a list of {{start, end, label}}")
    spans = sorted(_span(text, value) for value in values)
    for first, second in pairwise(spans):
        if second.start < first.end:
            raise ValueError(f"span {_told(text, second)}, which overlaps {_told(text, first)}; allowed: apart")
    return spans


def _span(text: str, value: object) -> Span:
    found = value if isinstance(value, Mapping) else {}
    start, end, label = (found.get(name) for name in Span._fields)
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(label, str) and label.strip()):
        raise ValueError(f"span {value!r}; expected: {{start, end, label}}, two numbers and a name")
    if not 0 <= start < end <= len(text):
        raise ValueError(f"span {start} to {end}; allowed: within the {len(text)} characters of its text, not empty")
    return Span(start, end, label.strip())


def _told(text: str, span: Span) -> str:
    return f"{span.start} to {span.end} ({text[span.start : span.end][:40]!r})"


def tagged_words(text: str, values: object) -> tuple[list[str], list[str]]:
    """Return a text's words and their tags in IOB2.

    Args:
        text: The text.
        values: As of `spans_of`.

    Raises:
        ValueError: As `spans_of`; or if a span begins or ends inside a word, cuts a character off its marks, or holds
            no word.

    Example:
        >>> from edgemin_hf.data.spans import tagged_words
        >>> tagged_words("To New York.", [{"start": 3, "end": 11, "label": "city"}])
        (['To', 'New', 'York', '.'], ['O', 'B-city', 'I-city', 'O'])
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a text with half a character (a lone surrogate); expected: whole code points")
    places = list(words_of(text))
    tags = ["O"] * len(places)
    for span in spans_of(text, values):
        prefix = "B"
        for number, (start, end) in enumerate(places):
            if end <= span.start or start >= span.end:
                continue
            if start < span.start or end > span.end:
                raise ValueError(f"span {_told(text, span)}, which cuts {text[start:end]!r}; allowed: whole words")
            tags[number], prefix = f"{prefix}-{span.label}", "I"
        if prefix == "B":
            raise ValueError(f"span {_told(text, span)}, which holds no word; allowed: one with words")
    return [text[start:end] for start, end in places], tags
