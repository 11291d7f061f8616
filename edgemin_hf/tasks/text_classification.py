"""Text classification: a text, or a pair of texts, gets one of several labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset, Value
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.data.tables import read_table
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import ProblemType
from edgemin_hf.tasks.labels import names_in_column, numbers_in_column
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.table_task import Labels
from edgemin_hf.tasks.text import TextTask

_FEW = 10
"""Rows from which a table whose rows have a label each is taken for one whose columns were mistaken."""


@dataclass
class TextClassification(TextTask):
    """Classification of a text or a pair of texts. See `TextTask`.

    Attributes:
        label_column: Name of the column that holds the label, by name.
        metric: accuracy, f1, precision, recall (of the second of two labels, of a `pos_label`, or an `average` of all)
            or matthews_correlation.
        out_of_scope_label: Label of what is none of the others. It has few rows for all that it stands for, so a
            training leaves it to nearly none: each stage that trains on the task ends by shifting its logit by what is
            best for the validation rows' metric, and rivals have the same. None shifts nothing.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks import TextClassification
        >>> task = TextClassification("train.csv", "test.csv", label_column="intent", max_length=64)
        >>> task.metric_name, task.predictions(np.array([[0.1, 2.0], [1.0, -1.0]])).tolist()
        ('accuracy', [1, 0])
    """

    type: Literal["text_classification"] = "text_classification"
    out_of_scope_label: str | None = None

    problem_type: ClassVar[ProblemType] = "single_label_classification"
    answer: ClassVar[Answer] = "label"

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration tells one of two or more labels."""
        return super().compatible(config) and config.num_labels > 1

    def check_rows(self, path: Path) -> None:
        """Check that each row has texts and one label.

        Raises:
            ValueError: If not; the message names value and what is expected.
        """
        super().check_rows(path)
        table = read_table(path)
        if not isinstance(table.features[self.label_column], Value | ClassLabel):
            value = f"{table[0][self.label_column]!r} in column {self.label_column!r}, row 1 of {path}"
            raise ValueError(f"{value}; expected: one label, or type: multi_label where a row has a list of them")

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that there are labels to tell apart, and that they are labels.

        Raises:
            ValueError: If not; the message begins with the field's name.
        """
        known, field = self.names_in(table), self.field("train")  # of classes there may be more than occur
        names = [known[number] for number in sorted(set(self.classes(table)))]
        if len(names) < 2 and not teacher:
            raise ValueError(f"label_column: {names[0]!r} in every row of {field}; expected: two or more labels")
        if self.out_of_scope_label is not None and self.out_of_scope_label not in (teacher or known):
            allowed = "one of the teacher's labels" if teacher else f"a label of {field}"
            raise ValueError(f"out_of_scope_label: {self.out_of_scope_label!r}; expected: {allowed}")
        if len(table) >= _FEW and len(names) > len(table) / 2:
            raise ValueError(
                f"label_column: {len(names)} labels in {len(table)} rows of {field}; expected: labels that several "
                f"rows have (is {self.label_column!r} a column of texts or numbers of rows?)"
            )

    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of a table's labels, in the order of `edgemin_hf.tasks.labels.names_in_column`."""
        return names_in_column(table, self.label_column)

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return the number of each row's label.

        Raises:
            ValueError: If a label is not among `labels`.
        """
        return numbers_in_column(table, self.label_column, labels)

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the number of the likeliest label, from their logits (labels,)."""
        likeliest: NDArray[np.int64] = np.asarray(outputs).argmax(axis=-1)
        return likeliest

    def out_of_scope_shift(self, logits: NDArray[np.float32], labels: Answers, out_of_scope: int) -> float:
        """Choose what is to be added to the logit of what is out of scope: the metric that decides is then best.

        With it the label is given where no other logit is ahead by more: a threshold, as of Larson et al. 2019 (arXiv
        1909.02027), but in the bias of a head, so that whatever runs the model has it.

        Args:
            logits: Logits of validation rows (rows, labels).
            labels: The numbers of their labels (rows,).
            out_of_scope: Number of the label.

        Returns:
            The shift, halfway between two rows' leads; of equally good ones that closest to 0. Without rows of the
            label 0.
        """
        others = np.array(logits, dtype=np.float64)
        others[:, out_of_scope] = -np.inf
        second, leads = others.argmax(axis=1), others.max(axis=1) - np.asarray(logits)[:, out_of_scope]
        order = np.argsort(leads)
        own = np.asarray(labels)[order] == out_of_scope
        # Between a row of the label and the next that is none; above the last, where that is one.
        steps = np.append(leads[order], leads.max() + 2.0)
        ends = np.flatnonzero(own & ~np.append(own[1:], False))
        shifts: list[float] = [0.0, *sorted(((steps[ends] + steps[ends + 1]) / 2).tolist(), key=abs)]
        sign = 1 if self.metrics[0].greater_is_better else -1
        return max(shifts, key=lambda shift: sign * self.value(labels, np.where(leads < shift, out_of_scope, second)))

    @staticmethod
    def hard_loss(
        logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
    ) -> Tensor:
        """Compute the cross-entropy with labels (batch,), a mean over examples.

        Labels that are stored as floating-point numbers (1.0) or as truths are taken too. An example's weight is that
        of its label and the mean one over all examples, not over their weights: batches of any size add up.

        Args:
            logits: Logits (batch, labels).
            labels: Numbers of labels (batch,), or probabilities (batch, labels).
            class_weights: A weight for each label, float32 (labels,); None weighs all alike.
            label_smoothing: Share of the target that all labels have in common (arXiv 1512.00567).

        Raises:
            ValueError: If one of them is no integer.
        """
        if labels.is_floating_point() and labels.dim() == 1 and not torch.equal(labels, labels.round()):
            raise ValueError(f"labels: {labels.tolist()}; expected: the numbers of classes, or a regression")
        if labels.dim() == 1:
            labels = labels.long()
        if class_weights is None and not label_smoothing:
            return F.cross_entropy(logits, labels)
        weights = None if class_weights is None else class_weights.to(logits)
        return F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing, reduction="none").mean()

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute T^2 KL(softmax(teacher / T) || softmax(student / T)), a mean over examples (arXiv 1503.02531).

        Args:
            student: Logits (batch, labels).
            teacher: Logits (batch, labels); no gradient flows to them.
            temperature: T.
            counted: Of no effect.

        Returns:
            The scalar loss.
        """
        log_student = F.log_softmax(student / temperature, dim=-1)
        log_teacher = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=-1)
        return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean KL divergence of predictions from a reference's, in nats, never negative."""
        moved = F.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean")
        return moved.clamp(min=0.0)
