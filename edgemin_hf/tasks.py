"""What a task is: its files and columns, its labels, its head and its metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score
from transformers import EvalPrediction, PreTrainedTokenizerBase

from edgemin_hf.data import check_table, read_table, tokenize


@dataclass
class TextClassification:
    """Single-sentence classification, measured by accuracy.

    Attributes:
        train_file: Table (.tsv, .csv, .jsonl, .json, .parquet) to train on; relative to the recipe.
        test_file: Table that only the final evaluation opens.
        text_column: Name of the column that holds the text.
        label_column: Name of the column that holds the label, by name.
        validation_share: Share of the training table that is held out, by a seeded draw, for every choice.
        max_length: Tokens after which a text is cut.
    """

    train_file: str
    test_file: str
    text_column: str = "text"
    label_column: str = "label"
    validation_share: float = 0.1
    max_length: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share: {self.validation_share}; allowed: above 0 and below 1")
        if self.max_length < 3:
            raise ValueError(f"max_length: {self.max_length}; allowed: 3 or more")

    def check(self, root: Path) -> None:
        """Checks both tables; of the test table only the first row is read.

        Raises:
            ValueError: If one is missing, empty or broken, or lacks a column; the message begins with the field's name.
        """
        for name in ("train_file", "test_file"):
            try:
                path = root / getattr(self, name)
                check_table(path, self.text_column, self.label_column, whole=name == "train_file")
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Reads, splits and tokenises the training table.

        Returns:
            The training rows and the validation rows, with the tokenizer's columns and "labels".
        """
        table = self._with_label_ids(read_table(root / self.train_file), labels)
        split = table.train_test_split(test_size=self.validation_share, seed=seed)
        train, validation = (
            tokenize(split[part], self.text_column, tokenizer, self.max_length) for part in ("train", "test")
        )
        return train, validation

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Reads and tokenises the test table, like `train_and_validation`."""
        table = self._with_label_ids(read_table(root / self.test_file), labels)
        return tokenize(table, self.text_column, tokenizer, self.max_length)

    def labels(self, root: Path) -> list[str]:
        """Returns the names of the training table's labels, sorted."""
        return sorted({str(label) for label in read_table(root / self.train_file)[self.label_column]})

    def texts(self, root: Path, count: int, seed: int) -> list[str]:
        """Returns some validation texts, as they are."""
        split = read_table(root / self.train_file).train_test_split(test_size=self.validation_share, seed=seed)
        return [str(text) for text in split["test"][self.text_column][:count]]

    def _with_label_ids(self, table: Dataset, labels: Mapping[str, int]) -> Dataset:
        unknown = {str(label) for label in table[self.label_column]} - set(labels)
        if unknown:
            raise ValueError(f"label_column: {sorted(unknown)[0]!r} in the data; allowed: {', '.join(labels)}")
        ids = [labels[str(label)] for label in table[self.label_column]]
        return table.select_columns(self.text_column).add_column("labels", ids)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Computes accuracy from logits (examples, labels): the `compute_metrics` of a Trainer."""
    return {"accuracy": float(accuracy_score(prediction.label_ids, np.argmax(prediction.predictions, axis=-1)))}


def accuracy_with_interval(correct: np.ndarray) -> dict[str, Any]:
    """Returns accuracy, its 95% interval (Wilson's score interval) and the number of examples.

    Args:
        correct: For each example whether it was right, bool (examples,).
    """
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return {"value": float(correct.mean()), "ci95": [float(interval.low), float(interval.high)], "n": len(correct)}
