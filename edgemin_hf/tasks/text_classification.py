"""What a task is: its files and columns, its labels, its head and its metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text, check_table, read_table, tokenize
from edgemin_hf.tasks.metrics import METRICS, measure


@dataclass
class TextClassification:
    """Classification of a text or a pair of texts, or regression: one score, where the metric is a correlation of such.

    Attributes:
        train_file: Table (.tsv, .csv, .jsonl, .json, .parquet) to train on; relative to the recipe.
        test_file: Table that only the final evaluation opens.
        validation_file: Table for every choice; None holds out a share of the training table.
        text_column: Name of the column that holds the text.
        text_pair_column: Name of the column that holds the second text of a pair; None where there is one text.
        label_column: Name of the column that holds the label, by name, or the score.
        metric: Name of the metric, a key of `METRICS`. F1 is that of the second label.
        validation_share: Share of the training table that is held out, by a seeded draw, without `validation_file`.
        max_length: Tokens after which a text, or a pair together, is cut.
    """

    train_file: str
    test_file: str
    validation_file: str | None = None
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    metric: str = "accuracy"
    validation_share: float = 0.1
    max_length: int = 128

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric: {self.metric}; allowed: {', '.join(METRICS)}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share: {self.validation_share}; allowed: above 0 and below 1")
        # A token of each text, and up to four special ones around a pair.
        shortest = 3 * len(self.text_columns)
        if self.max_length < shortest:
            raise ValueError(f"max_length: {self.max_length}; allowed: {shortest} or more")

    @property
    def text_columns(self) -> list[str]:
        """Name of the columns that hold text: one, or two for pairs."""
        return [self.text_column, *([] if self.text_pair_column is None else [self.text_pair_column])]

    @property
    def regression(self) -> bool:
        """Whether the model is to give a score instead of a label."""
        return METRICS[self.metric].regression

    @property
    def problem_type(self) -> str:
        """What `transformers` calls the kind of head that the model needs."""
        return "regression" if self.regression else "single_label_classification"

    def check(self, root: Path) -> None:
        """Check the tables; of the test table only the first row is read.

        Raises:
            ValueError: If one is missing, empty or broken, lacks a column, or has labels that the metric is not for;
                the message begins with the field's name.
        """
        for name in ("train_file", "validation_file", "test_file"):
            if getattr(self, name) is None:
                continue
            try:
                path, every_row = root / getattr(self, name), name != "test_file"
                check_table(
                    path,
                    *self.text_columns,
                    label_column=self.label_column,
                    scores=self.regression,
                    every_row=every_row,
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if self.validation_file is not None and not self.regression:
            _label_ids(read_table(root / self.validation_file)[self.label_column], dict.fromkeys(self.labels(root), 0))
        if self.metric == "f1" and len(self.labels(root)) != 2:
            raise ValueError(f"metric: f1 with {len(self.labels(root))} label(s); allowed: another, or two labels")

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Read, split and tokenise the training table, and the validation table where there is one.

        Returns:
            The training rows and the validation rows, with the tokenizer's columns and "labels".
        """
        train, validation = (self.tokenized(table, tokenizer, labels) for table in self._tables(root, seed))
        return train, validation

    def train_table(self, root: Path, seed: int) -> Dataset:
        """Read the training rows as they are, without those that are held out."""
        return self._tables(root, seed)[0]

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Read and tokenise the test table, like `train_and_validation`."""
        return self.tokenized(read_table(root / self.test_file), tokenizer, labels)

    def labels(self, root: Path) -> list[str]:
        """Return the names of the training table's labels, sorted; for a regression the name of its score."""
        if self.regression:
            return [self.label_column]
        return sorted({str(label) for label in read_table(root / self.train_file)[self.label_column]})

    def texts(self, root: Path, count: int, seed: int) -> list[Text]:
        """Return some validation texts or pairs, as they are."""
        _, validation = self._tables(root, seed)
        texts = validation[self.text_column][:count]
        if self.text_pair_column is None:
            return list(texts)
        return list(zip(texts, validation[self.text_pair_column][:count], strict=True))

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Return the number of the likeliest label, or the score, from logits (examples, labels)."""
        return logits[:, 0] if self.regression else logits.argmax(axis=-1)

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the metric from logits (examples, labels): the `compute_metrics` of a Trainer."""
        compute = METRICS[self.metric].compute
        return {self.metric: float(compute(prediction.label_ids, self.predictions(prediction.predictions)))}

    def measure(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
        """Measure predictions by the task's metric, with its 95% interval; see `edgemin_hf.tasks.metrics.measure`."""
        return measure(self.metric, labels, predictions)

    def _tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        train = read_table(root / self.train_file)
        if self.validation_file is not None:
            return train, read_table(root / self.validation_file)
        split = train.train_test_split(test_size=self.validation_share, seed=seed)
        return split["train"], split["test"]

    def tokenized(self, table: Dataset, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Tokenise a table's texts, and turn its labels into numbers.

        Returns:
            The tokenizer's columns and "labels".
        """
        column = table[self.label_column]
        values = [float(score) for score in column] if self.regression else _label_ids(column, labels)
        table = table.select_columns(self.text_columns).add_column("labels", values)
        return tokenize(table, self.text_column, tokenizer, self.max_length, self.text_pair_column)


def _label_ids(column: Iterable[Any], labels: Mapping[str, int]) -> list[int]:
    names = [str(label) for label in column]
    unknown = set(names) - set(labels)
    if unknown:
        raise ValueError(f"label_column: {min(unknown)!r} in the data; allowed: {', '.join(labels)}")
    return [labels[name] for name in names]
