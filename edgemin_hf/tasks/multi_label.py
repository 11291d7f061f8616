"""Multi-label classification: a text, or a pair of texts, gets any number of labels, each by a yes or no of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.data.tables import check_table, read_table, values_of
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import ProblemType
from edgemin_hf.tasks.labels import classes_of, labels_of, number_of, ordered, shown
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.table_task import Labels
from edgemin_hf.tasks.text import TextTask

_ANSWERS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}
"""What a column of a label of its own may hold, in lower case."""


@dataclass
class MultiLabel(TextTask):
    """Any number of labels for a text or a pair of texts. See `TextTask`.

    Labels stand in one column as a list of names (.jsonl, .json, .parquet), or in several columns, each of 0 and 1.

    Attributes:
        label_column: Name of the column that holds the list of labels (.jsonl, .json, .parquet); of no use beside
            `label_columns`.
        label_columns: Names of the columns, one a label, that hold 0 or 1; None where labels are a list.
        threshold: Probability from which a label is given, above 0 and below 1.
        metric: f1_micro (over all decisions), f1_macro (the mean over labels), precision and recall likewise, accuracy
            (the share of rows of which every label is right), or several of them.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks import MultiLabel
        >>> task = MultiLabel("train.csv", "test.csv", label_columns=["joy", "anger"], threshold=0.9)
        >>> task.predictions(np.array([[3.0, -1.0], [1.0, 4.0]])).tolist()
        [[1, 0], [0, 1]]
    """

    label_columns: list[str] | None = None
    threshold: float = 0.5
    type: Literal["multi_label"] = "multi_label"

    problem_type: ClassVar[ProblemType] = "multi_label_classification"
    answer: ClassVar[Answer] = "label set"
    # By itself the pipeline gives the likeliest label alone.
    pipeline_arguments: ClassVar[Mapping[str, object]] = {"top_k": None}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold: {self.threshold}; allowed: above 0 and below 1")
        if self.label_columns is not None and len(set(self.label_columns)) != max(len(self.label_columns), 1):
            raise ValueError(f"label_columns: {self.label_columns}; expected: different columns, at least one")

    def check_rows(self, path: Path) -> None:
        """Check that each row has texts, and a list of names or an answer in each label's column.

        Raises:
            ValueError: If not; the message names value and what is allowed.
        """
        for column in self.label_columns or [self.label_column]:
            check_table(path, *self.text_columns, label_column=column)
        table = read_table(path)
        if self.label_columns is not None:
            for column in self.label_columns:
                self._answers(table, column, path)
            return
        named = classes_of(table, self.label_column) is None
        for row, names in enumerate(values_of(table, self.label_column), start=1):
            if not isinstance(names, list) or not all(_is_name(name) if named else name is not None for name in names):
                raise ValueError(
                    f"{names!r} in column {self.label_column!r}, row {row} of {path}; expected: a list of labels by "
                    "name, or label_columns of 0 and 1"
                )

    def check_together(self, path: Path) -> None:
        """Check that some label holds somewhere; ValueError where none does."""
        table = read_table(path)
        if self.label_columns is not None:
            if not any(any(self._answers(table, column, path)) for column in self.label_columns):
                columns = ", ".join(self.label_columns)
                raise ValueError(f"columns {columns} of {path}, which hold no 1; expected: at least one")
        elif not self.names_in(table):
            raise ValueError(f"column {self.label_column!r} of {path}, which holds no label; expected: at least one")

    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of a table's labels: its columns in their order, or the names in its lists.

        Those of a list of `ClassLabel` are its own, in its order; others are ordered by `edgemin_hf.tasks.labels`.
        """
        if self.label_columns is not None:
            return list(self.label_columns)
        classes = classes_of(table, self.label_column)
        return list(classes.names) if classes else ordered({name for names in self._lists(table) for name in names})

    def _lists(self, table: Dataset) -> Iterator[list[str]]:
        """Yield each row's names, without white space around them."""
        classes = classes_of(table, self.label_column)
        for names in values_of(table, self.label_column):
            assert isinstance(names, list)  # noqa: S101 - `check_rows` looked at them
            yield [name.strip() if classes is None else classes.int2str(name) for name in names]

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model knows the labels, and that each of its own has a column where labels stand in columns.

        Raises:
            ValueError: If not.
        """
        super().check_labels(table, config)
        for label in labels_of(config) if self.label_columns is not None else ():
            if label not in self.names_in(table):
                raise ValueError(f"no column for label {label!r} of the model; expected: one for each of its labels")

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return for each row a 1.0 where a label holds and a 0.0 where not, by the labels' numbers.

        Raises:
            ValueError: If a label is not among `labels`.
        """
        numbers: dict[str, int] = {}
        for name in self.names_in(table):
            number = number_of(name, labels, classes_of(table, self.label_column))
            if number is None:
                field = "label_column" if self.label_columns is None else "label_columns"
                raise ValueError(f"{field}: {name!r} in the data; allowed: {shown(labels)}")
            numbers[name] = number
        rows = np.zeros((len(table), len(labels)), dtype=np.float32)
        if self.label_columns is not None:
            for column in self.label_columns:
                rows[:, numbers[column]] = self._answers(table, column)
        else:
            for row, names in enumerate(self._lists(table)):
                rows[row, [numbers[name] for name in names]] = 1.0
        found: list[list[float]] = rows.tolist()
        return found

    def _answers(self, table: Dataset, column: str, path: Path | None = None) -> list[float]:
        answers = []
        for row, value in enumerate(values_of(table, column), start=1):
            answer = _ANSWERS.get(str(value).strip().lower().removesuffix(".0"))
            if answer is None:
                place = "" if path is None else f" of {path}"
                raise ValueError(f"{value!r} in column {column!r}, row {row}{place}; allowed: 0, 1")
            answers.append(answer)
        return answers

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return a 1 for each label whose probability reaches the threshold, int64 (examples, labels)."""
        reaches: NDArray[np.bool_] = np.asarray(outputs) >= np.log(self.threshold / (1 - self.threshold))
        return reaches.astype(np.int64)

    @staticmethod
    def hard_loss(
        logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Compute the binary cross-entropy with labels (batch, labels) of 0 and 1, a mean over labels and examples.

        Args:
            logits: Logits (batch, labels).
            labels: 0 and 1, likewise.
            class_weights: The weights of each label's no and yes, float32 (labels, 2); None weighs all alike.
            label_smoothing: Share of a target that no and yes have in common (arXiv 1512.00567).
        """
        truth, weights = labels.to(logits.dtype), None
        if class_weights is not None:
            no, yes = class_weights.to(logits).unbind(dim=1)
            weights = torch.lerp(no.expand_as(truth), yes.expand_as(truth), truth)
        target = truth * (1 - label_smoothing) + label_smoothing / 2 if label_smoothing else truth
        return F.binary_cross_entropy_with_logits(logits, target, weights)

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute T^2 KL(teacher || student) of each label's softened yes or no, a mean over labels and examples.

        Hinton's soft labels (arXiv 1503.02531) for labels that do not exclude each other: sigmoid(logit / T) instead of
        a softmax.

        Args:
            student: Logits (batch, labels).
            teacher: Logits (batch, labels); no gradient flows to them.
            temperature: T.
            counted: Of no effect.

        Returns:
            The scalar loss.
        """
        return (
            temperature**2 * _binary_kl(student / temperature, teacher.detach().to(student.dtype) / temperature).mean()
        )

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the KL divergence of predictions from a reference's, in nats: a sum over labels, a mean over rows."""
        return _binary_kl(logits, reference).sum(dim=-1).mean().clamp(min=0.0)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _binary_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute KL(Bernoulli(sigmoid(teacher)) || Bernoulli(sigmoid(student))) of each logit."""
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return yes + no
