"""What tasks on a text or a pair of texts share: columns, texts without labels, tokenising."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import ClassVar

from datasets import Dataset, Features, Value, concatenate_datasets
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.sources import files_of
from edgemin_hf.data.tables import Text, check_table, read_lines, read_table, values_of
from edgemin_hf.data.tokenization import count_cut, tokenize
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.tasks.head import UNLABELLED
from edgemin_hf.tasks.table_task import Labels, TableTask


@dataclass
class TextTask(TableTask, ABC):
    """A task on a text, or a pair of texts, with one answer for each.

    Attributes:
        train_file: Table (.tsv, .csv, .jsonl, .json, .parquet) to train on; relative to the recipe.
        text_column: Name of the column that holds the text.
        text_pair_column: Name of the column that holds the second text of a pair; None where there is one text.
        label_column: Name of the column that holds the labels.
        unlabelled_files: Further texts, which the teacher alone labels: tables with the same columns of texts, or .txt
            with a text a line.
        max_length: Tokens after which a text, or a pair together, is cut.

    Example:
        >>> from edgemin_hf.tasks import TASKS, TextTask
        >>> issubclass(TASKS["regression"], TextTask)
        True
        >>> TASKS["text_classification"]("train.csv", "test.csv", text_pair_column="answer").text_columns
        ['text', 'answer']
    """

    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"

    auto_class: ClassVar[AutoClass] = AutoModelForSequenceClassification
    pipeline_tag: ClassVar[str] = "text-classification"

    def __post_init__(self) -> None:
        super().__post_init__()
        columns = [*self.text_columns, self.label_column]
        if len(set(columns)) != len(columns):
            texts = " and ".join(self.text_columns)
            raise ValueError(f"label_column: {self.label_column}, texts in {texts}; expected: different columns")
        # A token of each text, and up to four special ones around a pair.
        shortest = 3 * len(self.text_columns)
        if self.max_length < shortest:
            raise ValueError(f"max_length: {self.max_length}; allowed: {shortest} or more")

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that hold text: one, or two for pairs."""
        return [self.text_column, *([] if self.text_pair_column is None else [self.text_pair_column])]

    @property
    def reading(self) -> Reading:
        """How texts are read; see `Task.reading`."""
        return replace(super().reading, columns=tuple(self.text_columns), threshold=self.threshold)

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the labels."""
        return self.label_column

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration has the task's kind of head.

        A configuration without a problem type is what `transformers` takes it for.
        """
        implied = "regression" if config.num_labels == 1 else "single_label_classification"
        return (config.problem_type or implied) == cls.problem_type

    def check_rows(self, path: Path) -> None:
        """Check the texts and labels of a table's rows; ValueError where they will not do."""
        check_table(path, *self.text_columns, label_column=self.label_column)

    def notes_on(self, table: Dataset) -> list[str]:
        """Return which rows are without text."""
        notes = []
        for column in self.text_columns:
            empty = [row for row, text in enumerate(values_of(table, column), start=1) if not str(text).strip()]
            if empty:
                notes.append(f"{len(empty)} row(s) without text in column {column!r}, the first is row {empty[0]}")
        return notes

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the texts without labels: columns of texts alone.

        Raises:
            ValueError: If a file can't be read, or has no texts.
        """
        columns = Features({column: Value("string") for column in self.text_columns})
        tables = []
        for file in files_of(root, self.unlabelled_files):
            if file.suffix == ".txt" and self.text_pair_column is None:
                tables.append(Dataset.from_dict({self.text_column: read_lines(file)}, features=columns))
            else:
                check_table(file, *self.text_columns)
                tables.append(read_table(file).select_columns(self.text_columns).cast(columns))
        return concatenate_datasets(tables)

    def cut_rows(self, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many of a table's rows are cut by `max_length`."""
        return count_cut(self.texts_in(table), tokenizer, self.max_length)

    def texts_in(self, table: Dataset) -> Iterator[Text]:
        """Yield a table's texts, or pairs of texts, a row each."""
        sides = zip(*(map(str, values_of(table, column)) for column in self.text_columns), strict=True)
        return ((first, *second) if second else first for first, *second in sides)

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise a table's texts, and turn its labels into numbers.

        Args:
            table: The table.
            tokenizer: The tokenizer.
            labels: Number of each label.
            with_labels: Whether the table's labels are read; else those of all rows are missing (`UNLABELLED`).

        Returns:
            The tokenizer's columns and "labels".
        """
        values = self.encoded(table, labels) if with_labels else self._no_labels(len(table), len(labels))
        table = table.select_columns(self.text_columns).add_column("labels", values)
        return tokenize(table, self.text_column, tokenizer, self.max_length, self.text_pair_column)

    def _no_labels(self, rows: int, labels: int) -> Labels:
        if self.problem_type == "single_label_classification":
            return [UNLABELLED] * rows
        return [[nan] * labels] * rows if self.problem_type == "multi_label_classification" else [nan] * rows
