"""Entities in texts, with what the pipeline "token-classification" tells of each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from edgemin_hf.runtime.artefact import Artefact
from edgemin_hf.runtime.classifiers import softmax
from edgemin_hf.runtime.contexts import without_space
from edgemin_hf.runtime.model import Model, chunks, listed_texts
from edgemin_hf.runtime.words import NO_WORD, aligned

OUTSIDE = "O"
"""The tag of a word that is in no entity."""


class Entity(TypedDict):
    """A part of a text: what it is, how likely its words are that, its characters, and where they begin and end."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    tag: str
    score: float


class Tagger(Model):
    """A model that tells the entities in a text.

    A text that is longer than the model reads goes through several windows; each word counts in the one where it has
    the most context, as in training. A word is what the tokenizer takes for one where that marks the pieces of words
    (BERT's); else what stands between blanks.

    Example:
        >>> from edgemin_hf.runtime import Tagger
        >>> Tagger.methods
        ('entities',)
    """

    methods: ClassVar = ("entities",)

    def __init__(
        self, artefact: Artefact, file: str | None = None, threads: int = 1, providers: Sequence[str] | None = None
    ) -> None:
        super().__init__(artefact, file, threads, providers)
        stride, longest = artefact.reading.stride, self.max_length
        self._stride = longest // 4 if stride is None else min(stride, longest // 2 - 2)
        self.reader = self.reader_for(longest, self._stride)
        rules = json.loads((artefact.folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        self._marks_pieces = bool(rules.get("continuing_subword_prefix"))

    def entities(self, texts: str | Iterable[str]) -> list[Entity] | list[list[Entity]]:
        """Return the entities of each text, as the pipeline's `aggregation_strategy="first"` groups them.

        A word's tag is that of its first piece. Words that follow each other are one entity where their types are the
        same and the second has no B-.

        Args:
            texts: A text, or many.

        Returns:
            The entities of one, in their order, or a list of them for each: `entity_group`, `score` (the mean of its
            words'), `word` (the text itself), `start` and `end` (characters).

        Raises:
            ValueError: If one is no text.
        """
        rows, one = listed_texts(texts)
        found = [
            list(_grouped(text, words))
            for some in chunks(rows)
            for text, words in zip(some, self._words(some), strict=True)
        ]
        return found[0] if one else found

    def _words(self, texts: Sequence[str]) -> Iterator[list[_Word]]:
        """Yield the tagged words of each text."""
        windows = [[first, *first.overflowing] for first in self.reader.read_all(texts)]
        outputs = iter(self.outputs([window for rows in windows for window in rows]))
        for text, rows in zip(texts, windows, strict=True):
            yield self._tagged(rows, [next(outputs) for _ in rows], text)

    def _tagged(self, windows: Sequence[Encoding], outputs: Sequence[NDArray[np.float32]], text: str) -> list[_Word]:
        after, before = without_space(text)
        words = self._word_numbers(windows, after)
        ends = {
            number: int(before[end])
            for window, numbers in zip(windows, words, strict=True)
            for number, (_, end) in zip(numbers, window.offsets, strict=True)
            if number is not None
        }
        found = dict[int, _Word]()
        for window, (first, _), logits in zip(windows, aligned(words, self._stride), outputs, strict=True):
            places = np.flatnonzero(np.array(first) != NO_WORD)
            for place, likely in zip(places, softmax(logits[places]), strict=True):
                start, best = int(after[window.offsets[place][0]]), int(likely.argmax())
                found[first[place]] = _Word(start, ends[first[place]], self.labels[best], float(likely[best]))
        return [found[number] for number in sorted(found)]

    def _word_numbers(self, windows: Sequence[Encoding], after: NDArray[np.int64]) -> list[list[int | None]]:
        """Return the number of the word in the text that each token is a piece of; None of special tokens."""
        if self._marks_pieces:
            return [window.word_ids for window in windows]
        visible = after[:-1] == np.arange(len(after) - 1)
        begun = np.cumsum(visible & ~np.append(False, visible)[:-1]) - 1
        return [
            [
                None if part is None else _number(begun, after, *offsets)
                for part, offsets in zip(window.sequence_ids, window.offsets, strict=True)
            ]
            for window in windows
        ]


def _number(begun: NDArray[np.int64], after: NDArray[np.int64], start: int, end: int) -> int:
    """Return the number of the word that a token is a piece of: a blank is one of the word that it ends at."""
    place = after[start] if after[start] <= end else start  # further blanks belong to the word before
    return int(begun[min(place, len(begun) - 1)])


def _grouped(text: str, words: Sequence[_Word]) -> Iterator[Entity]:
    """Yield the entities that words that follow each other are."""
    group: list[_Word] = []
    for word in [*words, None]:
        if word is not None and group and _type(word.tag) == _type(group[0].tag) and not word.tag.startswith("B-"):
            group.append(word)
            continue
        if group and group[0].tag != OUTSIDE:
            start, end = group[0].start, group[-1].end
            score = sum(one.score for one in group) / len(group)
            yield Entity(entity_group=_type(group[0].tag), score=score, word=text[start:end], start=start, end=end)
        group = [] if word is None else [word]


def _type(tag: str) -> str:
    return tag[2:] if tag[:2] in ("B-", "I-") else tag
