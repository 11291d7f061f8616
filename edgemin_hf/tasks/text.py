"""What tasks on a text or a pair of texts share: tables, columns, the split, tokenising."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import ClassVar, TypeAlias

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets
from numpy.typing import NDArray
from transformers import (
    AutoModelForSequenceClassification,
    EvalPrediction,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from edgemin_hf.data.tables import Text, check_table, read_lines, read_table
from edgemin_hf.data.tokenization import tokenize
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.tasks.base import UNLABELLED, Divergence, ProblemType, Task
from edgemin_hf.tasks.checks import check_tables
from edgemin_hf.tasks.labels import classes_of, labels_of, number_of, shown
from edgemin_hf.tasks.metrics import (
    Answer,
    Answers,
    Choice,
    Measurement,
    check_module,
    measure,
    metrics_of,
    per_class,
    value_of,
)
from edgemin_hf.tasks.metrics.choices import numbered
from edgemin_hf.tasks.metrics.known import DEFAULTS

Labels: TypeAlias = Sequence[int] | Sequence[float] | Sequence[Sequence[float]]
"""The column "labels" that a model learns from, an entry a row."""


@dataclass
class TextTask(Task, ABC):
    """A task on a text, or a pair of texts, with one answer for each.

    Attributes:
        train_file: Table (.tsv, .csv, .jsonl, .json, .parquet) to train on; relative to the recipe.
        test_file: Table that only the final evaluation opens.
        validation_file: Table for every choice; None holds out a share of the training table.
        text_column: Name of the column that holds the text.
        text_pair_column: Name of the column that holds the second text of a pair; None where there is one text.
        label_column: Name of the column that holds the labels.
        metric: A module of `evaluate` by name, path or Hub id; a mapping of its `name` and settings; or a list of
            several, of which the first decides, or the one with `decides: true`.
        validation_share: Share of the training table that is held out, by a seeded draw, without `validation_file`.
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

    train_file: str
    test_file: str
    validation_file: str | None = None
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    metric: Choice | list[Choice] = ""
    validation_share: float = 0.1
    unlabelled_files: list[str] = field(default_factory=list)
    max_length: int = 128

    auto_class: ClassVar[AutoClass] = AutoModelForSequenceClassification
    pipeline_tag: ClassVar[str] = "text-classification"
    pipeline_arguments: ClassVar[Mapping[str, object]] = {}
    divergence_name: ClassVar[Divergence] = "kl_divergence"
    compares_label_names: ClassVar[bool] = True
    problem_type: ClassVar[ProblemType]
    answer: ClassVar[Answer]

    def __post_init__(self) -> None:
        if self.metric == "":
            self.metric = DEFAULTS[self.answer]
        self.metrics = metrics_of(self.metric, self.answer)
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share: {self.validation_share}; allowed: above 0 and below 1")
        columns = [*self.text_columns, self.label_column]
        if len(set(columns)) != len(columns):
            texts = " and ".join(self.text_columns)
            raise ValueError(f"label_column: {self.label_column}, texts in {texts}; expected: different columns")
        # A token of each text, and up to four special ones around a pair.
        shortest = 3 * len(self.text_columns)
        if self.max_length < shortest:
            raise ValueError(f"max_length: {self.max_length}; allowed: {shortest} or more")

    @property
    def metric_name(self) -> str:
        """Name of the metric that decides."""
        return self.metrics[0].name

    def settle_metrics(self, root: Path, labels: Mapping[str, int]) -> None:
        """Find the modules of metrics that do not ship, and the number of a label that a metric is asked for.

        Args:
            root: The folder that paths are relative to.
            labels: Number of each label.

        Raises:
            ValueError: If a module can't be loaded or takes other answers, or a label is not known.
        """
        self.metrics = [numbered(metric.located(root), labels) for metric in self.metrics]
        for metric in self.metrics:
            check_module(metric, self.answer)

    @property
    def threshold(self) -> float | None:
        """Probability from which a label is given; None where an example has one answer."""
        return None

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that hold text: one, or two for pairs."""
        return [self.text_column, *([] if self.text_pair_column is None else [self.text_pair_column])]

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration has the task's kind of head.

        A configuration without a problem type is what `transformers` takes it for.
        """
        implied = "regression" if config.num_labels == 1 else "single_label_classification"
        return (config.problem_type or implied) == cls.problem_type

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check all rows of all tables and what the tables are to each other, and return what is worth knowing of them.

        The test table is read for its columns and labels alone: nothing is predicted or chosen by it.

        Args:
            root: The folder that the tables' paths are relative to.
            teacher: The labels of a teacher that is not fine-tuned, which knows them already.

        Raises:
            ValueError: If one is missing, empty or broken, lacks a column or a label, has labels that the metric is not
                for, or is another one; the message begins with the field's name.
        """
        return check_tables(self, root, teacher)

    def check_rows(self, path: Path) -> None:
        """Check the texts and labels of a table's rows; ValueError where they will not do."""
        check_table(path, *self.text_columns, label_column=self.label_column)

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that the training rows have something to learn; ValueError where not.

        Args:
            table: All of the training table.
            teacher: As of `check`.
        """

    def check_table(self, path: Path, config: PretrainedConfig | None = None) -> None:
        """Check one table, and that a model of a configuration knows its labels.

        Raises:
            ValueError: If not.
        """
        self.check_rows(path)
        if config is not None:
            self.check_labels(read_table(path), config)

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model of a configuration knows a table's labels; ValueError where not."""
        if not self.compares_label_names:
            return
        known = labels_of(config)
        for label in self.names_in(table):
            if number_of(label, known, classes_of(table, self.label_column)) is None:
                raise ValueError(f"label {label!r}, which the model does not know; allowed: {shown(known)}")

    @abstractmethod
    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of the labels that a table has, in the order of their numbers."""

    @abstractmethod
    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return the labels of a table's rows as numbers; ValueError where a label is not known."""

    @abstractmethod
    def predictions(self, logits: NDArray[np.float32]) -> Answers:
        """Return what the logits (examples, labels) say, as `measure` takes it."""

    def labels(self, root: Path) -> list[str]:
        """Return the names of the training table's labels, in the order of their numbers."""
        return self.names_in(read_table(root / self.train_file))

    def model_kwargs(self, label_ids: Mapping[str, int]) -> dict[str, object]:
        """Return what tells a checkpoint of the task's labels: arguments of `from_pretrained`."""
        names = {index: label for label, index in label_ids.items()}
        return {
            "num_labels": len(label_ids),
            "label2id": dict(label_ids),
            "id2label": names,
            "problem_type": self.problem_type,
        }

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Read, split and tokenise the training table, and the validation table where there is one.

        Returns:
            The training rows and the validation rows, with the tokenizer's columns and "labels".
        """
        train, validation = (self.tokenized(table, tokenizer, labels) for table in self.tables(root, seed))
        return train, validation

    def train_table(self, root: Path, seed: int) -> Dataset:
        """Read the training rows as they are, without those that are held out."""
        return self.tables(root, seed)[0]

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training rows and the validation rows as they are."""
        train = read_table(root / self.train_file)
        if self.validation_file is not None:
            return train, read_table(root / self.validation_file)
        split = train.train_test_split(test_size=self.validation_share, seed=seed)
        return split["train"], split["test"]

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Read and tokenise the test table, like `train_and_validation`."""
        return self.tokenized(read_table(root / self.test_file), tokenizer, labels)

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the texts without labels: columns of texts alone.

        Raises:
            ValueError: If a file can't be read, or has no texts.
        """
        columns = Features({column: Value("string") for column in self.text_columns})
        tables = []
        for file in self.unlabelled_files:
            if file.endswith(".txt") and self.text_pair_column is None:
                tables.append(Dataset.from_dict({self.text_column: read_lines(root / file)}, features=columns))
            else:
                check_table(root / file, *self.text_columns)
                tables.append(read_table(root / file).select_columns(self.text_columns).cast(columns))
        return concatenate_datasets(tables)

    def texts(self, root: Path, count: int, seed: int) -> list[Text]:
        """Return some validation texts or pairs, as they are."""
        _, validation = self.tables(root, seed)
        texts = validation[self.text_column][:count]
        if self.text_pair_column is None:
            return list(texts)
        return list(zip(texts, validation[self.text_pair_column][:count], strict=True))

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the metrics from logits (examples, labels): the `compute_metrics` of a Trainer."""
        found = self.predictions(prediction.predictions)
        return {metric.name: value_of(metric, prediction.label_ids, found) for metric in self.metrics}

    def measure(self, labels: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions by the task's metrics, with their 95% intervals.

        Args:
            labels: The truth, one an example.
            predictions: The predictions, likewise.
            names: Names of the labels, by number; without them no label is measured on its own.

        Returns:
            What the metric that decides found, with what the others did under "others", and each label's own values
            under "per_class"; see `edgemin_hf.tasks.metrics.measure`.
        """
        found, *others = (measure(metric, labels, predictions) for metric in self.metrics)
        if others:
            found["others"] = others
        if names and (rows := per_class(self.metrics[0], self.answer, labels, predictions, names)):
            found["per_class"] = rows
        return found

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
