"""Questions and their contexts as token ids: a context longer than the model reads goes through several windows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerBase

from edgemin_hf.data.squad import Answers
from edgemin_hf.runtime.contexts import context_offsets, shortened, without_space
from edgemin_hf.tasks.head import UNLABELLED

logger = logging.getLogger(__name__)

START, END = 1, 2
"""What the label of a position is made of: the answer starts there, it ends there; 3 where it is one token."""
_FEATURES = {
    "example": Value("int64"),
    "context": Value("string"),
    "answers": List(Value("string")),
    "counted": List(Value("int8")),
    "labels": List(Value("int64")),
    "offsets": List(List(Value("int32"))),
}
"""The columns of a window beside the tokenizer's."""


def check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer tells the characters of its tokens, as fast ones do; ValueError where not."""
    if not tokenizer.is_fast:
        kind = type(tokenizer).__name__
        raise ValueError(f"tokenizer: {kind}, which tells no token's characters; allowed: a fast one (tokenizer.json)")


def question_windows(
    table: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int, *, with_labels: bool = True
) -> Dataset:
    """Tokenise questions with their contexts; only contexts are cut, into windows that overlap.

    A question goes before its context, and after it where the tokenizer pads on the left, as in the pipeline
    "question-answering". A question of more than half of `max_length` is cut, and told.

    Args:
        table: Columns "question", "context" and, with labels, "answers".
        tokenizer: A fast tokenizer, which tells the characters of each token.
        max_length: Tokens of a window.
        stride: Tokens of a context that two windows share; at most `longest_stride(max_length)`.
        with_labels: Whether answers are read; else no window is labelled.

    Returns:
        A row a window: the tokenizer's columns, and of each token

        - "counted": 1 for those of the context and the first, [CLS], on which "no answer" is; else 0;
        - "labels": 1 where the answer starts, 2 where it ends, 3 where it does both, else 0, and -100 where nothing is
          counted: of the first answer, and on [CLS] where the window does not hold all of that. Without labels all
          is -100;
        - "offsets": the characters of the context that it covers, without white space around them, else (0, 0);

        and "example", the number of the question in the table, its "context" and the texts of its "answers".

    Raises:
        ValueError: If the tokenizer does not tell characters.
    """
    check_fast(tokenizer)
    longest = max_length // 2
    cut: list[int] = []

    def encoded(rows: dict[str, list[Any]], numbers: list[int]) -> dict[str, list[object]]:
        questions, long = _cut(tokenizer, rows["question"], longest)
        cut.append(long)
        answers = rows["answers"] if with_labels else [None] * len(numbers)
        encoding = _encoded(tokenizer, questions, rows["context"], max_length, stride)
        found: dict[str, list[object]] = {name: encoding[name] for name in tokenizer.model_input_names}
        samples = encoding["overflow_to_sample_mapping"]
        found["example"] = [numbers[sample] for sample in samples]
        found["context"] = [rows["context"][sample] for sample in samples]
        found["answers"] = [answers[sample]["text"] if with_labels else [] for sample in samples]
        for window in _windows(encoding, rows["context"], answers, tokenizer.padding_side == "left"):
            for name, values in window.items():
                found.setdefault(name, []).append(values)
        return found

    windows = table.map(
        encoded,
        batched=True,
        with_indices=True,
        remove_columns=table.column_names,
        features=Features({**{name: List(Value("int32")) for name in tokenizer.model_input_names}, **_FEATURES}),
        desc="Tokenising",
    )
    if sum(cut):
        logger.warning("%d of %d questions have more than %d tokens, and are cut there", sum(cut), len(table), longest)
    return windows


def of_examples(rows: Dataset, column: str) -> list[Any]:
    """Return what a column holds in the windows of each question, which is the same in all of them."""
    found = dict(zip(rows["example"], rows[column], strict=True))
    return [found[example] for example in sorted(found)]


def _cut(tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], longest: int) -> tuple[list[str], int]:
    """Cut questions after some tokens, and count those that are."""

    def offsets_of(text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )["offset_mapping"]
        return offsets

    found = [shortened(question, longest, offsets_of) for question in questions]
    return found, sum(short != question for short, question in zip(found, questions, strict=True))


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    max_length: int,
    stride: int,
) -> BatchEncoding:
    left = tokenizer.padding_side == "left"
    first, second = (contexts, questions) if left else (questions, contexts)
    return tokenizer(
        list(first),
        list(second),
        truncation="only_first" if left else "only_second",
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )


def _windows(
    encoding: BatchEncoding, contexts: Sequence[str], answers: Sequence[Answers | None], context_first: bool
) -> Iterator[Mapping[str, NDArray[np.int64]]]:
    """Yield what is known of each window's tokens beside the tokenizer's columns."""
    ends = lru_cache(maxsize=None)(without_space)
    samples = np.array(encoding["overflow_to_sample_mapping"])
    offsets = [
        context_offsets(window, ends(contexts[sample]), context_first)
        for window, sample in zip(encoding.encodings, samples, strict=True)
    ]
    for sample, answer in enumerate(answers):
        mine = [offsets[window] for window in np.flatnonzero(samples == sample)]
        span = None if answer is None or not answer["text"] else _covered(answer, *ends(contexts[sample]), mine)
        for places in mine:
            counted = places[:, 1] > 0
            counted[0] = True
            yield {
                "counted": counted,
                "labels": _labels(places, counted, span) if answer is not None else np.full(len(counted), UNLABELLED),
                "offsets": places,
            }


def _covered(
    answer: Answers, after: NDArray[np.int64], before: NDArray[np.int64], windows: Sequence[NDArray[np.int64]]
) -> tuple[int, int] | None:
    """Return the first answer's first and last character that tokens cover, at its edges; None where none does.

    Tokenizers leave out white space, and some leave out control characters.
    """
    place = answer["answer_start"][0]
    begin, end = int(after[place]), int(before[place + len(answer["text"][0])])
    tokens = np.concatenate(windows)
    touched = tokens[(tokens[:, 1] > begin) & (tokens[:, 0] < end) & (tokens[:, 1] > tokens[:, 0])]
    if not len(touched):
        return None
    return max(begin, int(touched[:, 0].min())), min(end, int(touched[:, 1].max()))


def _labels(places: NDArray[np.int64], counted: NDArray[np.bool_], span: tuple[int, int] | None) -> NDArray[np.int64]:
    """Return the labels of a window's tokens: of the fewest that hold the span, or of [CLS]."""
    labels = np.where(counted, 0, UNLABELLED)
    first, last = 0, 0
    if span is not None:
        starts = np.flatnonzero((places[:, 0] <= span[0]) & (places[:, 1] > span[0]))
        ends = np.flatnonzero((places[:, 0] < span[1]) & (places[:, 1] >= span[1]))
        if len(starts) and len(ends):
            first, last = starts[0], ends[-1]
    labels[first] += START
    labels[last] += END
    return labels
