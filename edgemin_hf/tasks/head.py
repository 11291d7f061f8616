"""What a task's class knows without any data: the head of its models, and its losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Protocol, TypeAlias

from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.modeling.auto_class import AutoClass

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Divergence = Literal["kl_divergence", "squared_difference"]
LabelLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of logits and labels: a mean over examples, such as a task's `hard_loss`."""
UNLABELLED = -100
"""The label of an example without one, as PyTorch has it, where labels are the numbers of classes; else it is NaN."""


def labelled(labels: Tensor) -> Tensor:
    """Return which examples have labels, bool (batch,), see `UNLABELLED`.

    Args:
        labels: (batch,); (batch, labels), of each a yes or no; or whole numbers (batch, length), of which some count.
    """
    if labels.is_floating_point():
        return ~labels.isnan() if labels.dim() == 1 else ~labels.isnan().any(dim=1)
    return labels != UNLABELLED if labels.dim() == 1 else (labels != UNLABELLED).any(dim=1)


def mean_of_counted(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean over examples of the mean over an example's own counted tokens, 0 of one that has none.

    Args:
        values: (batch, length); of tokens by themselves (tokens,), whose mean is returned.
        counted: Which count, bool likewise; None counts all.
    """
    if counted is None:
        return values.mean()
    return ((values * counted).sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)).mean()


class TaskHead(Protocol):
    """The head of a task's models, and its losses.

    A model's head gives one tensor a batch (`edgemin_hf.modeling.outputs`): (batch, width), or of a ragged task, which
    asks about each token, (batch, length, width). The rows of a ragged task have a column `counted`
    (`edgemin_hf.data.padding`), which tells the tokens that its losses and predictions are about.

    Attributes:
        problem_type: What `transformers` calls the kind of head; None where it has no name for it.
        auto_class: The `AutoModelFor...` class with such a head.
        ragged: Whether a model answers for each token of an example.
        gives_vectors: Whether a model answers by a vector, whose numbers are no labels' logits.
        fits_head: Whether a head that is new can be fitted alone, on a frozen encoder's features: one row of them for
            each example.
        pipeline_tag: The Hub's name of it, and that of the pipeline.
        pipeline_arguments: What a call of the pipeline needs to give all that the model says.
        divergence_name: What `divergence` is, for a record.
        learns_labels: Whether there are labels to learn; else a teacher's answers are all there is.
        compares_label_names: Whether teacher and student must give their labels the same names, in the same order.
        teacher_beside: Whether the teacher runs beside a student that learns from it, on the same batches; else what it
            says of all rows is computed once, and kept.
    """

    problem_type: ClassVar[ProblemType | None]
    auto_class: ClassVar[AutoClass]
    ragged: ClassVar[bool]
    gives_vectors: ClassVar[bool]
    fits_head: ClassVar[bool]
    pipeline_tag: ClassVar[str]
    pipeline_arguments: ClassVar[Mapping[str, object]]
    divergence_name: ClassVar[Divergence]
    learns_labels: ClassVar[bool]
    compares_label_names: ClassVar[bool]
    teacher_beside: ClassVar[bool]

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration has the task's kind of head."""
        ...

    def configure(self, config: PretrainedConfig) -> None:
        """Write into a student's configuration what the task asks of its head; ValueError where it can't have that."""
        ...

    @classmethod
    def compared(cls, output: Tensor, config: PretrainedConfig) -> list[Tensor]:
        """Return what of an output a soft loss is computed of, whose sum it is: all of it, and its parts.

        Args:
            output: What a student's head gives, or what it learns.
            config: The student's configuration.
        """
        ...

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss with true labels -> a mean over examples, ().

        Args:
            logits: (batch, width), or (batch, length, width), float32.
            labels: As `tokenized` makes them; of a ragged task `UNLABELLED` where nothing counts.
        """
        ...

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute the loss with a teacher's logits -> a mean over examples, ().

        Args:
            student: (batch, width), or (batch, length, width).
            teacher: Likewise.
            temperature: What softens the predictions.
            counted: Which tokens count, bool (batch, length); of an example the loss is the mean over its own. None
                where a task is not ragged.
        """
        ...

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute how far predictions moved from a reference's, as of `soft_loss` -> (), 0 where not at all."""
        ...

    @staticmethod
    def condensed(logits: Tensor, labels: Tensor) -> Tensor:
        """Return what `predictions` needs of a model's outputs for a batch: all of it where that is little.

        Args:
            logits: (batch, width), or (batch, length, width).
            labels: The batch's, as `tokenized` makes them.
        """
        ...
