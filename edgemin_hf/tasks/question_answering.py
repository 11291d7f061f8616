"""Extractive question answering: an answer is a span of the context that a question comes with, or there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self, TypedDict

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from transformers import AutoModelForQuestionAnswering, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.sources import files_of, one_file
from edgemin_hf.data.tables import Text, values_of
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.runtime.answer_spans import Found, Span, find_answers
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.runtime.contexts import longest_stride
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import UNLABELLED
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.metrics.answer_texts import best_of, f1_of_words
from edgemin_hf.tasks.metrics.no_answer import best_threshold
from edgemin_hf.tasks.question_windows import END, START, check_fast, of_examples, question_windows
from edgemin_hf.tasks.questions import check_questions, have_answers, read_questions, read_unlabelled
from edgemin_hf.tasks.table_task import Labels, TableTask

_OUTPUTS = ("start", "end")
"""What the two logits of a token are about, by which the "labels" of a model are named."""


class Candidate(TypedDict):
    """A span that may be the answer: its text, the character of the context that it begins with, and its score."""

    text: str
    start: int
    score: float


class Alternatives(TypedDict):
    """What an answer was chosen from: the score of there being none, and the best spans, the best first."""

    no_answer: float
    spans: list[Candidate]


@dataclass
class QuestionAnswering(TableTask):
    """Answers to questions, as spans of their contexts: SQuAD (arXiv 1606.05250, 1806.03822) and what looks like it.

    Tables are SQuAD's own files (.json), or rows (.jsonl, .json, .parquet) with the columns "context", "question" and
    "answers", {"text": [...], "answer_start": [...]}, whose lists are empty where the context has no answer.

    Attributes:
        unlabelled_files: Further questions with contexts (.jsonl, .json, .csv, .tsv, .parquet), which the teacher alone
            answers.
        max_length: Tokens of a question with a window of its context.
        stride: Tokens of a context that two of its windows share, where it is longer than `max_length` allows; None
            takes 128, or as many as `max_length` leaves beside the longest question.
        max_answer_length: Tokens of an answer, at most.
        n_best: Spans of a question that are compared, and written down with its answer.
        no_answer_threshold: By how much the score of "no answer" must be above that of the best span for there to be no
            answer. None chooses it by validation rows, of each model its own, where some of their questions have no
            answer; where all have one, so has every other.
        metric: squad, or squad_v2 where some questions have no answer: each has F1 and exact match.

    Example:
        >>> from edgemin_hf.tasks import QuestionAnswering
        >>> task = QuestionAnswering("train-v2.0.json", "dev-v2.0.json", max_length=256, stride=64)
        >>> task.metric, task.n_best
        ('squad', 20)
    """

    max_length: int = 384
    stride: int | None = None
    max_answer_length: int = 30
    n_best: int = 20
    no_answer_threshold: float | None = None
    type: Literal["question_answering"] = "question_answering"

    auto_class: ClassVar[AutoClass] = AutoModelForQuestionAnswering
    pipeline_tag: ClassVar[str] = "question-answering"
    compares_label_names: ClassVar[bool] = False
    ragged: ClassVar[bool] = True
    fits_head: ClassVar[bool] = False  # what is likely of a token depends on all others of its window
    answer: ClassVar[Answer] = "answers"

    def __post_init__(self) -> None:
        super().__post_init__()
        longest = longest_stride(self.max_length)
        if longest < 0:
            raise ValueError(f"max_length: {self.max_length}; allowed: 9 or more")
        self.stride = min(128, longest) if self.stride is None else self.stride
        if not 0 <= self.stride <= longest:
            raise ValueError(
                f"stride: {self.stride} with max_length {self.max_length}; allowed: 0 to {longest}, since a question "
                "may take half of max_length"
            )
        for name in ("max_answer_length", "n_best"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 1 or more")

    @property
    def reading(self) -> Reading:
        """How questions and contexts are read; see `Task.reading`."""
        return Reading(
            columns=("question", "context"),
            max_length=self.max_length,
            stride=self.stride,
            max_answer_length=self.max_answer_length,
            no_answer_threshold=self.no_answer_threshold,
        )

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the answers."""
        return "answers"

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration gives two numbers for each token."""
        return bool(config.num_labels == 2 and configured_for(config, cls.auto_class))

    def joined(self, files: Sequence[Path]) -> Path:
        """Return the file of rows; several may write answers in either way, and have columns of their own."""
        return one_file(files, read_questions)

    def read(self, path: Path) -> Dataset:
        """Read a table of questions; ValueError where a column is missing, or answers are none."""
        return read_questions(path)

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the questions that the teacher alone answers; ValueError where there is no question or no context."""
        return concatenate_datasets([read_unlabelled(file) for file in files_of(root, self.unlabelled_files)])

    def check_rows(self, path: Path) -> None:
        """Check that rows have questions and contexts, and that answers are where they say; ValueError where not."""
        check_questions(path)
        if any(metric.module == "squad" for metric in self.metrics) and not all(have_answers(self.read(path))):
            raise ValueError(
                f"{path} has questions without an answer, for which metric squad has no rule; allowed: metric: squad_v2"
            )

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that some question has an answer, and that some contexts can be held out; ValueError where not."""
        field = self.field("train")
        if not any(have_answers(table)):
            raise ValueError(f"{field}: no question has an answer; expected: some that have one")
        if self.holds_out and len(table.unique("context")) < 2:
            raise ValueError(f"{field}: one context in all rows; expected: several, or a {self.field('validation')}")

    def notes_on(self, table: Dataset) -> list[str]:
        """Return how many of a table's questions have no answer."""
        without = sum(not has for has in have_answers(table))
        return [f"{without:,} of {len(table):,} questions have no answer"] if without else []

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training rows and the validation rows; a context that is held out goes with all its questions."""
        if not self.holds_out:
            return super().tables(root, seed)
        table = self.table(root, "train")
        _, numbers, counts = np.unique(table["context"], return_inverse=True, return_counts=True)
        order = np.random.default_rng(seed).permutation(len(counts))[:-1]  # one stays to train on
        enough = np.searchsorted(counts[order].cumsum(), self.validation_share * len(table)) + 1
        held_out = np.isin(numbers, order[:enough])
        return table.select(np.flatnonzero(~held_out)), table.select(np.flatnonzero(held_out))

    def names_in(self, table: Dataset) -> list[str]:
        """Return what the two numbers are that a model gives for each token."""
        return list(_OUTPUTS)

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return nothing: which tokens an answer is depends on the tokenizer, see `question_windows`."""
        return []

    def texts_in(self, table: Dataset) -> Iterator[Text]:
        """Yield the questions, each with its context."""
        yield from zip(values_of(table, "question"), values_of(table, "context"), strict=True)

    def fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return the tokenizer; ValueError of a slow one, which tells no token's characters."""
        check_fast(tokenizer)
        return tokenizer

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise questions with their contexts, in as many windows as these need. See `question_windows`."""
        return question_windows(table, tokenizer, self.max_length, self.stride or 0, with_labels=with_labels)

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the texts of the answers, "" where there is none.

        Args:
            outputs: Start and end logits of each window (length, 2).
            rows: The windows, as `tokenized` makes them.
        """
        assert rows is not None  # noqa: S101 - the task is ragged
        return [self._text(found, context) for found, context in self._found(outputs, rows)]

    def _found(self, outputs: Outputs, rows: Dataset) -> Iterator[tuple[Found, str]]:
        """Return what was found for each question, and its context."""
        windows = rows.select_columns(["example", "offsets"])
        found = find_answers(outputs, windows, self.n_best, self.max_answer_length)
        return zip(found, of_examples(rows, "context"), strict=True)

    def _text(self, found: Found, context: str) -> str:
        threshold = self.no_answer_threshold
        if not found.spans or (threshold is not None and found.margin > threshold):
            return ""
        return context[found.spans[0].start : found.spans[0].end]

    def alternatives(self, outputs: Outputs, rows: Dataset) -> Sequence[Alternatives]:
        """Return the best spans for each question, and the score of there being no answer."""
        return [
            {"no_answer": found.no_answer, "spans": [_shown(span, context) for span in found.spans]}
            for found, context in self._found(outputs, rows)
        ]

    def references(self, rows: Dataset) -> list[list[str]]:
        """Return the texts of each question's answers; none where it has no answer."""
        return of_examples(rows, "answers")

    def chooses(self, table: Dataset) -> bool:
        """Return whether the threshold of "no answer" is chosen by a table: some have no answer, and none is set."""
        return self.no_answer_threshold is None and not all(have_answers(table))

    def calibrated(self, outputs: Outputs, rows: Dataset) -> Self:
        """Return the task with the threshold of "no answer" that is best for a model's outputs on validation rows."""
        references = self.references(rows)
        answerable = np.array([bool(texts) for texts in references])
        if self.no_answer_threshold is not None or answerable.all():
            return self
        found = list(self._found(outputs, rows))
        margins = np.array([one.margin for one, _ in found])
        gains = best_of(f1_of_words, references, [self._text(*one) for one in found])
        chosen = replace(self, no_answer_threshold=best_threshold(margins, gains, answerable))
        chosen.metrics = self.metrics  # which may be settled
        return chosen

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean of the start's and the end's cross-entropy over the counted tokens, a mean over windows.

        Args:
            logits: Start and end logits (batch, length, 2).
            labels: As of `question_windows` (batch, length).
        """
        counted = labels != UNLABELLED
        right = torch.stack([counted & (labels & part > 0) for part in (START, END)], dim=-1)
        return -(_log_softmax(logits, counted) * right).sum(dim=1).mean()

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute T^2 KL(softmax(teacher / T) || softmax(student / T)) over the counted tokens.

        Args:
            student: Start and end logits (batch, length, 2).
            teacher: Likewise; no gradient flows to them.
            temperature: T.
            counted: Which tokens count, bool (batch, length); None counts all.

        Returns:
            The mean of that of starts and that of ends, a mean over windows, ().
        """
        teacher = teacher.detach().to(student.dtype)
        return temperature**2 * _kl(student / temperature, teacher / temperature, counted)

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean KL divergence of starts and ends from a reference's, in nats, never negative."""
        return _kl(logits, reference, counted).clamp(min=0.0)


def _shown(span: Span, context: str) -> Candidate:
    return {"text": context[span.start : span.end], "start": span.start, "score": span.score}


def _log_softmax(logits: Tensor, counted: Tensor | None) -> Tensor:
    """Return log-probabilities over the tokens that count (batch, length, 2), and 0 for others."""
    if counted is None:
        return logits.log_softmax(dim=1)
    left_out = ~counted[..., None]
    # No infinity: a window of which nothing counts would make NaN of the gradients of all.
    return logits.masked_fill(left_out, torch.finfo(logits.dtype).min).log_softmax(dim=1).masked_fill(left_out, 0.0)


def _kl(logits: Tensor, reference: Tensor, counted: Tensor | None) -> Tensor:
    ours, theirs = _log_softmax(logits, counted), _log_softmax(reference, counted)
    likely = theirs.exp() if counted is None else theirs.exp() * counted[..., None]
    return (likely * (theirs - ours)).sum(dim=1).mean()
