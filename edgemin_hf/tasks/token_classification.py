"""Token classification: each word of a sentence gets a tag, which tells the entities that it is a part of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import torch.nn.functional as F
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from transformers import AutoModelForTokenClassification, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.sources import files_of
from edgemin_hf.data.tables import Text
from edgemin_hf.data.word_windows import windows, word_tokenizer
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.entities import OUTSIDE, Scheme, check_tag, inside, loose_tags, tags_of
from edgemin_hf.tasks.head import UNLABELLED, mean_of_counted
from edgemin_hf.tasks.labels import classes_of, labels_of, number_of, shown
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.sentence_rows import likeliest_tags, sentence_rows, true_tags
from edgemin_hf.tasks.sentences import check_sentences, named_tags, read_sentences, read_words
from edgemin_hf.tasks.table_task import TableTask

_SHORTEST = 8
"""Tokens of the shortest window: special ones, and some words."""


@dataclass
class TokenClassification(TableTask):
    """A tag for each word of a sentence. See `TableTask`.

    Sentences are lists of words with a list of tags (.jsonl, .json, .parquet), CoNLL files (.conll, .txt: a word a
    line, its tag in the last column), or texts with spans of characters. The tags are IOB2, or read as such.

    Attributes:
        tokens_column: Name of the column that holds the words.
        tags_column: Name of the column that holds the words' tags: names, or the numbers of a `ClassLabel`.
        text_column: Name of the column that holds the text, where entities are spans of characters.
        spans_column: Name of the column that holds the spans, lists of {start, end, label}; None where there are words
            and tags.
        unlabelled_files: Further texts, which the teacher alone tags: tables with words in `tokens_column`, or texts in
            `text_column`, .conll, or .txt with a text a line.
        scheme: How the files' tags tell entities: iob2, iob1, iobes or bilou.
        label_all_tokens: Whether all pieces of a word learn its tag, those after the first as I-; else the first alone.
        stride: Tokens that two windows of a sentence have in common which is longer than `max_length`; None takes a
            quarter of that. A word is learned, and predicted, in the one where it has more context.
        max_length: Tokens of a window.
        metric: seqeval, strictly of IOB2 where nothing else is said: type and both ends of an entity must be right.

    Example:
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.tasks import TokenClassification
        >>> rules = Tokenizer(models.WordPiece({"[UNK]": 0, "New": 1, "York": 2, "##er": 3}, unk_token="[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> task = TokenClassification("train.jsonl", "test.jsonl")
        >>> table = Dataset.from_dict({"tokens": [["New", "Yorker"]], "tags": [["B-group", "I-group"]]})
        >>> rows = task.tokenized(table, tokenizer, {"O": 0, "B-group": 1, "I-group": 2})
        >>> rows[0]["labels"], rows[0]["counted"]
        ([1, 2, -100], [1, 1, 0])
        >>> task.predictions([np.array([[0.0, 2.0, 1.0], [3.0, 1.0, 2.0], [0.0, 0.0, 9.0]])], rows)
        [['B-group', 'O']]
    """

    tokens_column: str = "tokens"
    tags_column: str = "tags"
    text_column: str = "text"
    spans_column: str | None = None
    scheme: Scheme = "iob2"
    label_all_tokens: bool = False
    stride: int | None = None
    type: Literal["token_classification"] = "token_classification"

    auto_class: ClassVar[AutoClass] = AutoModelForTokenClassification
    pipeline_tag: ClassVar[str] = "token-classification"
    pipeline_arguments: ClassVar[Mapping[str, object]] = {"aggregation_strategy": "simple"}
    ragged: ClassVar[bool] = True
    answer: ClassVar[Answer] = "tags"

    def __post_init__(self) -> None:
        super().__post_init__()
        columns = [self.tokens_column, self.tags_column, *([] if self.spans_column is None else [self.text_column])]
        columns += [] if self.spans_column is None else [self.spans_column]
        if len(set(columns)) != len(columns):
            raise ValueError(f"tags_column: {', '.join(columns)} as columns; expected: different ones")
        if self.max_length < _SHORTEST:
            raise ValueError(f"max_length: {self.max_length}; allowed: {_SHORTEST} or more")
        self.stride = self.max_length // 4 if self.stride is None else self.stride
        if not 0 <= self.stride <= self.max_length // 2 - 2:
            raise ValueError(
                f"stride: {self.stride}; allowed: 0 to {self.max_length // 2 - 2}, below half of max_length"
            )

    @property
    def reading(self) -> Reading:
        """How texts are read; see `Task.reading`."""
        return replace(super().reading, columns=(self.text_column,), stride=self.stride)

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the tags."""
        return self.tags_column

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration tags tokens."""
        return configured_for(config, cls.auto_class)

    def read(self, path: Path) -> Dataset:
        """Read sentences as lists of words and of tags in IOB2, by the names of their columns.

        Raises:
            ValueError: If a file, a column or a row will not do.
        """
        spans = None if self.spans_column is None else (self.text_column, self.spans_column)
        return read_sentences(path, (self.tokens_column, self.tags_column), spans, self.scheme)

    def check_rows(self, path: Path) -> None:
        """Check that each row is a sentence with as many tags of the scheme as words; ValueError where not."""
        check_sentences(self.read(path), (self.tokens_column, self.tags_column), path)

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the sentences without tags: lists of words, or texts that are divided into words.

        Raises:
            ValueError: If a file can't be read, or has no words.
        """
        files = files_of(root, self.unlabelled_files)
        return concatenate_datasets([read_words(file, self.tokens_column, self.text_column) for file in files])

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that there are entities to learn.

        Raises:
            ValueError: If not; the message begins with the field's name.
        """
        if not any(tag != OUTSIDE for tags in named_tags(table, self.tags_column) for tag in tags):
            raise ValueError(f"tags_column: {OUTSIDE!r} for every word of {self.field('train')}; expected: entities")

    def notes_on(self, table: Dataset) -> list[str]:
        """Return how many tags go on with an entity that none began, which counts for none."""
        loose = sum(map(loose_tags, named_tags(table, self.tags_column)))
        told = "tag(s) go on with an entity that none begins, and count for none (scheme: iob1 would begin one)"
        return [f"{loose:,} I- {told}"] if loose else []

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model's labels are tags in IOB2, and that it knows a table's.

        Raises:
            ValueError: If not.
        """
        for label in labels_of(config):
            try:
                check_tag(label, "iob2")
            except ValueError as error:
                raise ValueError(f"{error}, of the model") from None
        super().check_labels(table, config)

    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of the tags, in the order of their numbers.

        Those of a `ClassLabel` are its own, in its order. Others are O, then B- and I- of each type by its name.
        """
        classes = classes_of(table, self.tags_column)
        if classes is not None:
            return list(classes.names)
        return tags_of(tag[2:] for tags in named_tags(table, self.tags_column) for tag in tags if tag != OUTSIDE)

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Sequence[list[int]]:
        """Return the numbers of each sentence's tags.

        Raises:
            ValueError: If a tag is not among `labels`.
        """
        named = named_tags(table, self.tags_column)
        numbers: dict[str, int] = {}
        for name in sorted({name for tags in named for name in tags}):
            number = number_of(name, labels)
            if number is None:
                raise ValueError(f"tags_column: {name!r} in the data; allowed: {shown(labels)}")
            numbers[name] = number
        return [[numbers[name] for name in tags] for tags in named]

    def texts_in(self, table: Dataset) -> Iterator[Text]:
        """Yield the words of each sentence with spaces between them."""
        return (" ".join(map(str, words)) for words in table[self.tokens_column])

    def fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return a tokenizer that reads words; ValueError of a slow one. See `word_tokenizer`."""
        return word_tokenizer(tokenizer)

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise sentences into rows, several of a long one. See `Task.tokenized`.

        Returns:
            The tokenizer's columns; "labels", a number for each token, `UNLABELLED` where none counts; "counted", 1
            where one does; "word_ids", the number of the word whose tag a token tells, else -1; "example", the number
            of the sentence, "words", how many it has, and in its first row "tags", those of all of them.
        """
        names = sorted(labels, key=lambda name: labels[name])
        tags = self.encoded(table, labels) if with_labels else [[] for _ in range(len(table))]
        reader = partial(windows, word_tokenizer(tokenizer), max_length=self.max_length, stride=self.stride or 0)
        going_on = [labels[inside(name, labels)] for name in names] if self.label_all_tokens else None
        return sentence_rows(table, self.tokens_column, tags, names, reader, going_on)

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the likeliest tag of each word, by sentences; a word without pieces is in no entity."""
        assert rows is not None  # noqa: S101 - of a ragged task
        return likeliest_tags(outputs, rows)

    def references(self, rows: Dataset) -> Answers:
        """Return the true tags of each word, by sentences."""
        return true_tags(rows)

    @staticmethod
    def hard_loss(
        logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Compute the cross-entropy with labels (batch, length), a mean over a sentence's own, then over sentences.

        Tokens by themselves are taken too: (tokens, tags) with labels (tokens,), a mean over all. See
        `TextClassification.hard_loss` for the weights of tags and smoothing.
        """
        weights = None if class_weights is None else class_weights.to(logits)
        values = F.cross_entropy(
            logits.transpose(1, -1),
            labels,
            weights,
            ignore_index=UNLABELLED,
            label_smoothing=label_smoothing,
            reduction="none",
        )
        return mean_of_counted(values, labels != UNLABELLED)

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute T^2 KL(softmax(teacher / T) || softmax(student / T)) of each token (arXiv 1503.02531).

        Args:
            student: Logits (batch, length, tags).
            teacher: Likewise; no gradient flows to them.
            temperature: T.
            counted: As of `Task.soft_loss`; None counts all.

        Returns:
            The mean over a sentence's own tokens, then over sentences.
        """
        scaled = (side / temperature for side in (student, teacher.detach().to(student.dtype)))
        return temperature**2 * mean_of_counted(_divergences(*scaled), counted)

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean KL divergence of the tokens' predictions from a reference's, in nats, never negative."""
        return mean_of_counted(_divergences(logits, reference), counted).clamp(min=0.0)


def _divergences(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute KL(softmax(teacher) || softmax(student)) of each token: (batch, length, tags) -> (batch, length)."""
    return F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none").sum(dim=-1)
