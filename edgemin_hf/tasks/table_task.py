"""What tasks on tables of examples share: files, the split, their checks, the metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as setting
from inspect import signature
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.masking import Collation
from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.checks import check_tables
from edgemin_hf.tasks.head import Divergence, ProblemType
from edgemin_hf.tasks.labels import classes_of, labels_of, number_of, shown
from edgemin_hf.tasks.measured import MeasuredTask
from edgemin_hf.tasks.splits import held_out
from edgemin_hf.tasks.table_source import TableSource

Labels: TypeAlias = Sequence[int] | Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[int]]
"""The column "labels" that a model learns from, an entry a row."""


@dataclass
class TableTask(MeasuredTask, TableSource, Task, ABC):
    """A task whose examples are the rows of tables. See `TableSource` for these, and `MeasuredTask` for its metrics.

    Attributes:
        validation_share: Share of the training table that is held out, by a seeded draw, without `validation_file`.
        unlabelled_files: Further texts, which the teacher alone labels.
        max_length: Tokens after which an example is cut.
        stratify: Whether each label has its share of the rows that are held out, of a task with one label a row; where
            a label has one row, all are drawn alike.
        class_weights: "balanced" has rare labels count as much as common ones where labels are learned: scikit-learn's
            rows / (labels × rows of the label), of label sets for each yes and no, of tags for each word. None counts
            all rows alike.
        label_smoothing: Share of a label's weight that all labels have in common (arXiv 1512.00567), where labels are
            learned.

    Example:
        >>> from edgemin_hf.tasks import TASKS
        >>> from edgemin_hf.tasks.table_task import TableTask
        >>> issubclass(TASKS["regression"], TableTask)
        True
    """

    validation_share: float = 0.1
    unlabelled_files: list[str] = setting(default_factory=list)
    max_length: int = 128
    stratify: bool = False
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float = 0.0

    pipeline_arguments: ClassVar[Mapping[str, object]] = {}
    divergence_name: ClassVar[Divergence] = "kl_divergence"
    learns_labels: ClassVar[bool] = True
    compares_label_names: ClassVar[bool] = True
    teacher_beside: ClassVar[bool] = False
    ragged: ClassVar[bool] = False
    gives_vectors: ClassVar[bool] = False
    fits_head: ClassVar[bool] = True
    problem_type: ClassVar[ProblemType | None] = None

    def __post_init__(self) -> None:
        self.choose_metrics()
        self.check_source()
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share: {self.validation_share}; allowed: above 0 and below 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing: {self.label_smoothing}; allowed: 0 to below 1")
        if self.stratify and self.answer != "label":
            raise ValueError(f"stratify: true for {self.type}; allowed: for one label a row")
        for name in ("class_weights", "label_smoothing"):
            if getattr(self, name) and name not in signature(self.hard_loss).parameters:
                raise ValueError(
                    f"{name}: {getattr(self, name)} for {self.type}; allowed: where its hard_loss takes it"
                )

    @property
    def reading(self) -> Reading:
        """How texts are read and what is made of outputs, for what runs an artefact without this package's tasks."""
        return Reading(max_length=self.max_length)

    @property
    def threshold(self) -> float | None:
        """Probability from which a label is given; None where an example has one answer."""
        return None

    @property
    def more_test_files(self) -> dict[str, str]:
        """Further files that only the final evaluation measures by, by their fields."""
        return {}

    @property
    def embedding_width(self) -> Literal["hidden_size"] | None:
        """Width of the vectors of a student that gives some, as `create_student` takes it."""
        return None

    def is_principal(self, teacher: PretrainedConfig, width: int) -> bool:
        """Return whether a student of some width learns the teacher's outputs on their principal directions."""
        return False

    def configure(self, config: PretrainedConfig) -> None:
        """Write into a student's configuration what kind of head it has: pipelines would squash a score without it."""
        config.problem_type = self.problem_type

    @classmethod
    def compared(cls, output: Tensor, config: PretrainedConfig) -> list[Tensor]:
        """Return what of an output a soft loss is computed of: all of it. See `Task.compared`."""
        return [output]

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

    @abstractmethod
    def check_rows(self, path: Path) -> None:
        """Check the rows of a file, each by itself; ValueError where they will not do."""

    def check_together(self, path: Path) -> None:
        """Check what all rows of a part must be together, whose files may be several; ValueError where they are not."""

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that the training rows have something to learn; ValueError where not.

        Args:
            table: All of the training table.
            teacher: As of `check`.
        """

    def notes_on(self, table: Dataset) -> list[str]:
        """Return what is worth knowing of a table's rows, a line each."""
        return []

    def check_table(self, path: Path, config: PretrainedConfig | None = None) -> None:
        """Check one table, and that a model of a configuration knows its labels.

        Raises:
            ValueError: If not.
        """
        self.check_rows(path)
        self.check_together(path)
        if config is not None:
            self.check_labels(self.read(path), config)

    def check_teacher(self, root: Path, teacher: PretrainedConfig) -> None:
        """Check that a teacher, used as it is, knows the training table's labels; ValueError where not."""
        try:
            self.check_labels(self.table(root, "train"), teacher)
        except ValueError as error:
            raise ValueError(f"{error} (without the stage finetune the teacher's labels count)") from None

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model of a configuration knows a table's labels; ValueError where not."""
        if not self.compares_label_names:
            return
        known = labels_of(config)
        for label in self.names_in(table):
            if number_of(label, known, classes_of(table, self.labels_column)) is None:
                raise ValueError(f"label {label!r}, which the model does not know; allowed: {shown(known)}")

    @abstractmethod
    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of the labels that a table has, in the order of their numbers."""

    @abstractmethod
    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return the labels of a table's rows as numbers; ValueError where a label is not known."""

    def fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return a tokenizer that reads the task's examples: here as it is."""
        return tokenizer

    def collation(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> Collation | None:
        """Return how batches of its rows are made to train on; None where they are padded as they are."""
        return None

    @staticmethod
    def condensed(logits: Tensor, labels: Tensor) -> Tensor:
        """Return what `predictions` needs of a model's outputs for a batch: all of it. See `Task.condensed`."""
        return logits

    @abstractmethod
    def texts_in(self, table: Dataset) -> Iterator[Text]:
        """Yield a table's texts, or pairs of texts, a row each."""

    def labels(self, root: Path) -> list[str]:
        """Return the names of the training table's labels, in the order of their numbers."""
        return self.names_in(self.table(root, "train"))

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

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the texts without labels; ValueError of a task that learns from none."""
        raise ValueError(f"unlabelled_files: {self.unlabelled_files}; allowed: none for {self.type}")

    def train_table(self, root: Path, seed: int) -> Dataset:
        """Read the training rows as they are, without those that are held out."""
        return self.tables(root, seed)[0]

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training rows and the validation rows as they are."""
        train = self.table(root, "train")
        if not self.holds_out:
            return train, self.table(root, "validation")
        return held_out(train, self.validation_share, seed, self.classes(train) if self.stratify else None)

    def classes(self, table: Dataset) -> list[int]:
        """Return the number of each row's label, by the table's own order of labels."""
        return [int(number) for number in self.encoded(table, {n: i for i, n in enumerate(self.names_in(table))})]  # type: ignore[arg-type]

    def cut_rows(self, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many of a table's rows are cut by `max_length`."""
        return 0

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Read and tokenise the test table, like `train_and_validation`."""
        return self.tokenized(self.table(root, "test"), tokenizer, labels)

    def texts(self, root: Path, count: int, seed: int) -> list[Text]:
        """Return some validation texts or pairs, as they are."""
        _, validation = self.tables(root, seed)
        return list(self.texts_in(validation.select(range(min(count, len(validation))))))
