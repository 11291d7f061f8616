"""Regression: a text, or a pair of texts, gets a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.data.tables import check_table, read_table
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import Divergence, ProblemType
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.table_task import Labels
from edgemin_hf.tasks.text import TextTask


@dataclass
class Regression(TextTask):
    """A score for a text or a pair of texts. See `TextTask`.

    Attributes:
        label_column: Name of the column that holds the score, a number.
        metric: pearsonr, spearmanr, mse or mae.

    Example:
        >>> import torch
        >>> from edgemin_hf.tasks import Regression
        >>> Regression("train.csv", "test.csv", text_column="sentence1", text_pair_column="sentence2").metric
        'pearsonr'
        >>> Regression.hard_loss(torch.tensor([[2.0], [4.0]]), torch.tensor([1.0, 4.0]))
        tensor(0.5000)
    """

    type: Literal["regression"] = "regression"

    problem_type: ClassVar[ProblemType] = "regression"
    answer: ClassVar[Answer] = "score"
    # The one score means the same by any name.
    compares_label_names: ClassVar[bool] = False
    divergence_name: ClassVar[Divergence] = "squared_difference"

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration gives one score."""
        return super().compatible(config) and config.num_labels == 1

    def check_rows(self, path: Path) -> None:
        """Check texts and scores; ValueError where they are none."""
        check_table(path, *self.text_columns, label_column=self.label_column, scores=True)

    def check_together(self, path: Path) -> None:
        """Check that scores differ: no correlation is told of others. ValueError where not."""
        scores = self.encoded(read_table(path), {})
        if len(scores) > 1 and len(set(scores)) == 1:
            column = f"column {self.label_column!r}, every row of {path}"
            raise ValueError(f"{scores[0]:g} in {column}; expected: scores that differ")

    def names_in(self, table: Dataset) -> list[str]:
        """Return the name of the score, that of its column."""
        return [self.label_column]

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return the scores as floating-point numbers."""
        return [float(score) for score in table[self.label_column]]

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the scores (examples,), from their one logit each."""
        return np.asarray(outputs)[:, 0]

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean squared error with scores (batch,)."""
        return F.mse_loss(logits, labels.to(logits.dtype).view_as(logits))

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute the mean squared error with the teacher's scores (Ba and Caruana 2014, arXiv 1312.6184).

        Args:
            student: Scores (batch, 1).
            teacher: Scores (batch, 1); no gradient flows to them.
            temperature: Of no effect.
            counted: Of no effect.

        Returns:
            The scalar loss.
        """
        return F.mse_loss(student, teacher.detach().to(student.dtype))

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean squared difference of scores from a reference's."""
        return (logits - reference).square().mean()
