"""What a task is: the seam between data, heads, losses and metrics. A task is one file that fulfils `Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from transformers import EvalPrediction, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.tasks.metrics import Answers, Choice, Measurement, Metric

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Divergence = Literal["kl_divergence", "squared_difference"]

UNLABELLED = -100
"""The label of an example without one, as PyTorch has it, where labels are the numbers of classes; else it is NaN."""


def labelled(labels: Tensor) -> Tensor:
    """Return which examples have labels, bool (batch,): labels (batch,) or (batch, labels), see `UNLABELLED`."""
    known = ~labels.isnan() if labels.is_floating_point() else labels != UNLABELLED
    return known if known.dim() == 1 else known.all(dim=1)


class Task(Protocol):
    """What a model is for.

    What the class knows (the head, its losses) serves models without any data; what an object knows are the files and
    columns of a recipe.

    Attributes:
        type: Its name in a recipe.
        problem_type: What `transformers` calls the kind of head.
        auto_class: The `AutoModelFor...` class with such a head.
        pipeline_tag: The Hub's name of it, and that of the pipeline.
        pipeline_arguments: What a call of the pipeline needs to give all that the model says.
        divergence_name: What `divergence` is, for a record.
        compares_label_names: Whether teacher and student must give their labels the same names, in the same order.
        train_file: Table to train on.
        test_file: Table that only the final evaluation opens.
        validation_file: Table for every choice; None holds out a share of the training table.
        validation_share: That share.
        unlabelled_files: Texts without labels to train on, which the teacher alone labels.
        metric: The metric, or several; see `edgemin_hf.tasks.metrics.metrics_of`.
        metrics: The same ready to use, the one that decides first.
        max_length: Tokens after which an example is cut.
    """

    type: str
    problem_type: ClassVar[ProblemType]
    auto_class: ClassVar[AutoClass]
    pipeline_tag: ClassVar[str]
    pipeline_arguments: ClassVar[Mapping[str, object]]
    divergence_name: ClassVar[Divergence]
    compares_label_names: ClassVar[bool]
    train_file: str
    test_file: str
    validation_file: str | None
    validation_share: float
    unlabelled_files: list[str]
    metric: Choice | list[Choice]
    metrics: list[Metric]
    max_length: int

    @property
    def metric_name(self) -> str:
        """Name of the metric that decides."""
        ...

    @property
    def threshold(self) -> float | None:
        """Probability from which a label is given; None where an example has one answer."""
        ...

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that hold text."""
        ...

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration has the task's kind of head."""
        ...

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss with true labels: logits (batch, labels), float32 -> a mean over examples, ()."""
        ...

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Compute the loss with a teacher's logits, both (batch, labels) -> a mean over examples, ()."""
        ...

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor) -> Tensor:
        """Compute how far predictions moved from a reference's, both (rows, labels) -> (), 0 where not at all."""
        ...

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check the tables, and return what is worth knowing of them.

        Args:
            root: The folder that their paths are relative to.
            teacher: The labels of a teacher that is not fine-tuned, which knows them already.

        Raises:
            ValueError: Where they will not do; the message begins with the field's name.
        """
        ...

    def check_table(self, path: Path, config: PretrainedConfig | None = None) -> None:
        """Check one table, and that a model of a configuration knows its labels; ValueError where not."""
        ...

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model of a configuration knows a table's labels; ValueError where not."""
        ...

    def labels(self, root: Path) -> list[str]:
        """Return the names of the labels, in the order of their numbers."""
        ...

    def model_kwargs(self, label_ids: Mapping[str, int]) -> dict[str, object]:
        """Return what tells a checkpoint of the task's labels: arguments of `from_pretrained`."""
        ...

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the texts without labels."""
        ...

    def train_table(self, root: Path, seed: int) -> Dataset:
        """Read the training rows as they are, without those that are held out."""
        ...

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Read, split and tokenise the training rows and the validation rows."""
        ...

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Read and tokenise the test table."""
        ...

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise a table's texts, and turn its labels into the numbers of "labels"; without them `UNLABELLED`."""
        ...

    def texts(self, root: Path, count: int, seed: int) -> list[Text]:
        """Return some validation texts or pairs, as they are."""
        ...

    def predictions(self, logits: NDArray[np.float32]) -> Answers:
        """Return what the logits (examples, labels) say."""
        ...

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Compute the metrics: the `compute_metrics` of a Trainer."""
        ...

    def measure(self, labels: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions by the task's metrics, with their 95% intervals, and each label where names are given."""
        ...
