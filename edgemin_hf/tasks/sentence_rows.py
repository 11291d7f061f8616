"""Sentences as rows that a model reads, several of a long one, and what the tokens of rows say of words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as ListOf

from edgemin_hf.data.padding import COUNTED
from edgemin_hf.data.word_windows import Window
from edgemin_hf.runtime.words import NO_WORD
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.entities import OUTSIDE
from edgemin_hf.tasks.head import UNLABELLED

Reader: TypeAlias = Callable[[Sequence[Sequence[str]]], list[list[Window]]]
"""Tokenises sentences, each into windows."""


def sentence_rows(
    table: Dataset,
    column: str,
    tags: Sequence[Sequence[int]],
    names: Sequence[str],
    reader: Reader,
    going_on: Sequence[int] | None,
) -> Dataset:
    """Tokenise sentences into rows.

    Args:
        table: The sentences.
        column: Name of the column of words.
        tags: Numbers of the tags of each sentence; empty where they are not known.
        names: The tags by their numbers.
        reader: Tokenises sentences.
        going_on: The tag that a further piece of a word learns, by the word's; None where it learns none.

    Returns:
        The tokenizer's columns; "labels", a number for each token, `UNLABELLED` where none counts; "counted", 1 where
        one does; "word_ids", the number of the word whose tag a token tells, else -1; "example", the number of the
        sentence, "words", how many it has, and in its first row "tags", those of all of them.
    """
    make = partial(_rows, column=column, tags=tags, reader=reader, going_on=going_on)
    numbers, tag = ListOf(Value("int32")), ClassLabel(names=list(names))
    features = dict.fromkeys(reader([["a"]])[0][0].inputs, numbers)
    features |= {"labels": ListOf(Value("int64")), COUNTED: ListOf(Value("int8")), "word_ids": numbers}
    features |= {"example": Value("int32"), "words": Value("int32"), "tags": ListOf(tag)}
    return table.map(
        make,
        batched=True,
        with_indices=True,
        remove_columns=table.column_names,
        features=Features(features),
        desc="Tokenising",
    )


def _rows(
    batch: Mapping[str, Sequence[Sequence[str]]],
    numbers: Sequence[int],
    *,
    column: str,
    tags: Sequence[Sequence[int]],
    reader: Reader,
    going_on: Sequence[int] | None,
) -> dict[str, list[object]]:
    """Return the rows of some sentences of a table, by columns: `numbers` says which they are; see `sentence_rows`."""
    rows = []
    for number, words, found in zip(numbers, batch[column], reader(batch[column]), strict=True):
        for window in found:
            labels, counted = _labels(window, tags[number], going_on)
            told = {"example": number, "words": len(words), "tags": tags[number] if window is found[0] else []}
            rows.append({**window.inputs, "labels": labels, COUNTED: counted, "word_ids": window.word_ids, **told})
    return {name: [row[name] for row in rows] for name in rows[0]}


def _labels(window: Window, tags: Sequence[int], going_on: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Return a label for each token of a window, and whether it counts."""
    labels, counted = [UNLABELLED] * len(window.word_ids), [0] * len(window.word_ids)
    for place, (word, inner) in enumerate(zip(window.word_ids, window.inner_ids, strict=True)):
        if word != NO_WORD or (inner != NO_WORD and going_on is not None):
            counted[place] = 1
            if tags:
                labels[place] = tags[word] if word != NO_WORD or going_on is None else going_on[tags[inner]]
    return labels, counted


def likeliest_tags(outputs: Outputs, rows: Dataset) -> list[list[str]]:
    """Return the likeliest tag of each word, by sentences; O of a word without pieces.

    Args:
        outputs: (length, tags) for each row.
        rows: The rows, in any order.
    """
    names = rows.features["tags"].feature.names
    found: dict[int, list[str]] = {}
    for output, row in zip(outputs, rows.select_columns(["example", "words", "word_ids"]), strict=True):
        tags = found.setdefault(row["example"], [OUTSIDE] * row["words"])
        for place in np.flatnonzero(np.array(row["word_ids"]) != NO_WORD):
            tags[row["word_ids"][place]] = names[int(output[place].argmax())]
    return [found[example] for example in sorted(found)]


def true_tags(rows: Dataset) -> list[list[str]]:
    """Return the true tags of each word, by sentences."""
    names = rows.features["tags"].feature.names
    tags = {row["example"]: row["tags"] for row in rows.select_columns(["example", "tags"]) if row["tags"]}
    return [[names[number] for number in tags[example]] for example in sorted(tags)]
