"""A teacher that is a table: what anything at all predicted for texts, as labels, logits or probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from edgemin_hf.data.tables import check_table, read_table, values_of
from edgemin_hf.tasks.labels import shown
from edgemin_hf.tasks.text import TextTask

CERTAIN = 1e4
"""The logit of what is certain. Softmax and sigmoid of it are 1 in float32 at any temperature below 100, so that the
divergence from a label is the cross-entropy with it, and no loss becomes infinite."""
SCORES = ("logits", "probabilities")
"""Columns that hold a number a label; a table without either has the task's labels."""
_ROUNDING = 0.02
"""How far probabilities may sum to another number than 1."""

Key = tuple[str, ...]
"""The texts of a row, by which it is found."""


class Predictions:
    """What a table predicts, by text.

    Its column `logits` or `probabilities` holds for each row a list of numbers in the order of the labels, or a mapping
    from label to number (in .csv and .tsv as JSON). A table with neither holds labels as the task's own tables do.

    Args:
        path: The table.
        task: The task, whose columns of texts it has.
        labels: Number of each label.

    Raises:
        ValueError: If it can't be read, or a row is not what it should be; the message names value and row.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from datasets import Dataset
        >>> from edgemin_hf.distillation import Predictions
        >>> from edgemin_hf.tasks import TextClassification
        >>> task = TextClassification("train.csv", "test.csv")
        >>> with TemporaryDirectory() as folder:
        ...     table = Dataset.from_dict({"text": ["my card"], "probabilities": [[0.25, 0.75]]})
        ...     _ = table.to_parquet(Path(folder, "answers.parquet"))
        ...     found = Predictions(Path(folder, "answers.parquet"), task, {"card": 0, "loan": 1})
        >>> found.logits(Dataset.from_dict({"text": ["my card"]})).softmax(-1)
        tensor([[0.2500, 0.7500]])
    """

    def __init__(self, path: Path, task: TextTask, labels: Mapping[str, int]) -> None:
        self.path, self.task = path, task
        table = read_table(path)
        columns = [column for column in SCORES if column in table.column_names]
        if len(columns) > 1:
            raise ValueError(f"{path}, with columns {' and '.join(columns)}; allowed: one of the two")
        if columns:
            check_table(path, *task.text_columns)
            names = sorted(labels, key=lambda name: labels[name])
            self._logits = _from_scores(path, columns[0], _scores(path, columns[0], names), task)
        elif task.answer == "ranking":  # whose soft loss is of logits: those of certain answers have no end
            raise ValueError(f"{path}, without logits; allowed: a column of these (labels are learned from train_file)")
        else:
            task.check_table(path)
            self._logits = _from_labels(np.array(task.encoded(table, labels)), len(labels), task)
        self._rows = self._by_text(table)

    def _by_text(self, table: Dataset) -> dict[Key, int]:
        rows: dict[Key, int] = {}
        for row, key in enumerate(_keys(table, self.task)):
            first = rows.setdefault(key, row)
            if not np.array_equal(self._logits[first], self._logits[row]):
                raise ValueError(
                    f"{_told(key)} in rows {first + 1} and {row + 1} of {self.path}, with two predictions; expected: "
                    "one for each text"
                )
        return rows

    def check(self, table: Dataset) -> None:
        """Check that there is a prediction for each row of a table; ValueError where not."""
        keys = list(_keys(table, self.task))
        if missing := [key for key in keys if key not in self._rows]:
            raise ValueError(
                f"{self.path}, which predicts nothing for {len(missing):,} of {len(keys):,} texts, such as "
                f"{_told(missing[0])}; expected: one prediction for each"
            )

    def logits(self, table: Dataset) -> Tensor:
        """Return the predictions for the rows of a table as logits (rows, labels), float32.

        Raises:
            ValueError: If there is none for a row.
        """
        self.check(table)
        rows = [self._rows[key] for key in _keys(table, self.task)]
        return torch.from_numpy(self._logits[rows].astype(np.float32))


def _keys(table: Dataset, task: TextTask) -> Iterable[Key]:
    """Yield the texts of each row; white space around them tells no text from another."""
    texts = zip(*(values_of(table, column) for column in task.text_columns), strict=True)
    return (tuple(str(text).strip() for text in row) for row in texts)


def _told(key: Key) -> str:
    text = repr(" / ".join(key))
    return text if len(text) <= 80 else f"{text[:80]}..."


def _scores(path: Path, column: str, names: list[str]) -> NDArray[np.float64]:
    """Return a column's numbers, one a label."""
    rows = []
    for row, value in enumerate(values_of(read_table(path), column), start=1):
        given = _parsed(value)
        if isinstance(given, dict) and set(given) == set(names):
            given = [given[name] for name in names]
        if not isinstance(given, list) or len(given) != len(names) or not all(map(_is_number, given)):
            raise ValueError(
                f"{str(given)[:80]} in column {column!r}, row {row} of {path}; expected: {len(names)} number(s), in "
                f"the order of the labels or by their names: {shown(names)}"
            )
        rows.append(given)
    return np.array(rows, dtype=np.float64)


def _parsed(value: object) -> object:
    """Return what a cell holds: of .csv and .tsv it is text, and so are mappings that have not the same keys."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _from_scores(path: Path, column: str, scores: NDArray[np.float64], task: TextTask) -> NDArray[np.float64]:
    if column == "logits":
        return scores
    if task.problem_type == "regression":
        allowed = "its scores, or logits" if task.answer == "score" else "logits"
        raise ValueError(f"column 'probabilities' of {path} for {task.type}; allowed: {allowed}")
    odd = (scores < 0) | (scores > 1)
    if task.problem_type == "single_label_classification":
        odd = odd | (abs(scores.sum(axis=1, keepdims=True) - 1) > _ROUNDING)
        allowed = "numbers from 0 to 1, of sum 1 (or the column logits)"
    else:
        allowed = "numbers from 0 to 1 (or the column logits)"
    if odd.any():
        row = int(odd.any(axis=1).argmax())
        raise ValueError(f"{scores[row].tolist()} in column {column!r}, row {row + 1} of {path}; expected: {allowed}")
    if task.problem_type == "single_label_classification":
        return _log(scores)
    return np.clip(_log(scores) - _log(1 - scores), -CERTAIN, CERTAIN)


def _log(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm, of 0 minus what is certain."""
    found: NDArray[np.float64] = np.where(probabilities > 0, np.log(np.maximum(probabilities, 1e-300)), -CERTAIN)
    return found


def _from_labels(encoded: NDArray[np.generic], count: int, task: TextTask) -> NDArray[np.float64]:
    """Return logits that say the labels with certainty; scores are what a regression's logits are."""
    if task.problem_type == "single_label_classification":
        found: NDArray[np.float64] = CERTAIN * np.eye(count)[encoded.astype(np.int64)]
        return found
    if task.problem_type == "multi_label_classification":
        return CERTAIN * (2 * encoded.astype(np.float64) - 1)
    return encoded.astype(np.float64)[:, None]
