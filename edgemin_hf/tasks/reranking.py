"""Reranking: a pair of a query and a passage gets a score, by which the passages of each query are ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch.nn.functional as F
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.tables import check_table, read_table, values_of
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.splits import held_out_groups

GROUP = "group"
"""Column of tokenised rows that holds the number of a row's group, since rows may come in any order."""


@dataclass
class Reranking(Regression):
    """A score for a query with a passage: a cross-encoder, such as sentence-transformers' CrossEncoder with one output.

    It learns by binary cross-entropy, as those do: a label is the probability that the passage is relevant. The
    teacher's logits are learned by the mean squared error. Without a recipe a model is a `Regression`, whose head it
    has.

    Attributes:
        text_column: Name of the column that holds the query.
        text_pair_column: Name of the column that holds the passage.
        label_column: Name of the column that says how relevant that is: to learn from 0 to 1, to measure by 0 or any
            grade above.
        group_column: Name of the column that says which rows are ranked together; None takes those of one query.
        metric: ndcg_at_10 or mrr_at_10: means over groups, with intervals by resamples of groups.

    Example:
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> from edgemin_hf.tasks import Reranking
        >>> task = Reranking("train.tsv", "test.tsv")
        >>> truth = task.references(Dataset.from_dict({"labels": [0.0, 1.0, 1.0, 0.0], "group": [0, 0, 1, 1]}))
        >>> round(task.measure(truth, task.predictions(np.array([[0.2], [0.1], [3.0], [-1.0]])))["value"], 4)
        0.8155
    """

    type: Literal["reranking"] = "reranking"  # type: ignore[assignment]
    text_column: str = "query"
    text_pair_column: str | None = "passage"
    group_column: str | None = None

    answer: ClassVar[Answer] = "ranking"
    pipeline_tag: ClassVar[str] = "text-ranking"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text_pair_column is None:
            raise ValueError("text_pair_column: None for reranking; expected: the column of the passages")
        if self.group_column in (self.text_pair_column, self.label_column):
            raise ValueError(f"group_column: {self.group_column}; allowed: another column than passages' and labels'")

    def check_rows(self, path: Path) -> None:
        """Check texts, groups and relevance; ValueError where they are none."""
        super().check_rows(path)
        if self.group_column is not None:
            check_table(path, label_column=self.group_column)
        for row, relevance in enumerate(self._relevance(read_table(path)), start=1):
            if relevance < 0:
                column = f"column {self.label_column!r}, row {row} of {path}"
                raise ValueError(f"{relevance:g} in {column}; allowed: 0 or more")

    def check_together(self, path: Path) -> None:
        """Check that something is relevant; ValueError where nothing is."""
        if not self._relevance(read_table(path)).any():
            raise ValueError(f"0 in column {self.label_column!r}, every row of {path}; expected: relevant rows too")

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that labels are probabilities, and that some groups can be held out; ValueError where not."""
        field, highest = self.field("train"), self._relevance(table).max()
        if highest > 1:
            told = "to learn from 0 to 1 (grades divided by the highest), or type: regression, which learns any numbers"
            raise ValueError(f"label_column: {highest:g} in {field}; allowed: {told}")
        if self.holds_out and np.count_nonzero(self._counts(table)) < 2:
            raise ValueError(
                f"{field}: one group with a relevant row; expected: several, or a {self.field('validation')}"
            )

    def notes_on(self, table: Dataset) -> list[str]:
        """Return how many rows have no text, and how many groups nothing that is relevant."""
        counts = self._counts(table)
        without = int((~counts).sum())
        told = f"{without:,} of {len(counts):,} groups have no relevant row, and do not count in metrics"
        return [*super().notes_on(table), *[told] * bool(without)]

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training rows and the validation rows; a group that is held out goes with all its rows.

        Groups without a relevant row stay to train on: nothing is chosen by them.
        """
        if not self.holds_out:
            return super().tables(root, seed)
        table = self.table(root, "train")
        return held_out_groups(table, self.validation_share, seed, self._groups(table), self._counts(table))

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise queries with passages.

        Returns:
            The tokenizer's columns, "labels", and, where the table says it, "group", the number of each row's group.
        """
        rows = super().tokenized(table, tokenizer, labels, with_labels=with_labels)
        return rows.add_column(GROUP, self._groups(table)) if self._grouped_by in table.column_names else rows

    @property
    def _grouped_by(self) -> str:
        return self.text_column if self.group_column is None else self.group_column

    def references(self, rows: Dataset) -> Answers:
        """Return how relevant tokenised rows are, and the numbers of their groups, float64 (rows, 2)."""
        return np.column_stack([rows["labels"], rows[GROUP]]).astype(np.float64)

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the binary cross-entropy of the logits' sigmoids with labels (batch,) from 0 to 1."""
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype).view_as(logits))

    def _relevance(self, table: Dataset) -> NDArray[np.float64]:
        return np.array(self.encoded(table, {}), dtype=np.float64)

    def _groups(self, table: Dataset) -> list[int]:
        """Return the number of each row's group, in the order in which they begin."""
        numbers: dict[object, int] = {}
        return [numbers.setdefault(group, len(numbers)) for group in values_of(table, self._grouped_by)]

    def _counts(self, table: Dataset) -> NDArray[np.bool_]:
        """Return whether each group has a relevant row, bool (groups,)."""
        groups = np.array(self._groups(table))
        counts = np.zeros(groups.max(initial=-1) + 1, dtype=bool)
        counts[groups[self._relevance(table) > 0]] = True
        return counts
