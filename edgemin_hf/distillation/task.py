"""Task distillation: the teacher's predictions and the true labels, by the losses of the task that the head is for.

A classifier learns softened predictions (Hinton et al. 2015, arXiv 1503.02531), a regression the teacher's score by
squared error, as Ba and Caruana (2014, arXiv 1312.6184) do with logits. TinyBERT (arXiv 1909.10351) and PKD (arXiv
1908.09355) have no soft loss for scores: TinyBERT's code trains STS-B on the labels alone, PKD's has no regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.data.padding import COUNTED, TEACHER_LOGITS
from edgemin_hf.distillation.common import check_weights
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.head import LabelLoss, labelled
from edgemin_hf.tasks.known import TASKS, named_config, task_of
from edgemin_hf.utils.settings import Settings, settings_of


@dataclass
class TaskDistillationConfig(Settings):
    """Settings of task distillation. Hard labels alone are plain fine-tuning, and need no teacher.

    Attributes:
        soft_weight: Weight of the teacher's softened predictions; for a regression of the mean squared error with its
            score.
        hard_weight: Weight of the cross-entropy with the true labels; for a regression of the mean squared error. An
            example without a label (-100, or NaN where labels are no integers) counts as one whose loss is 0.
        temperature: Temperature of the soft labels; their loss is multiplied by its square, so that their gradients
            keep their size (section 2 of Hinton et al.). Of no effect for a regression.

    Example:
        >>> from edgemin_hf import TaskDistillationConfig
        >>> TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0).temperature  # plain fine-tuning
        2.0
    """

    soft_weight: float = 0.5
    hard_weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_weights(self, "soft_weight", "hard_weight")
        if not 0 < self.temperature < inf:
            raise ValueError(f"temperature: {self.temperature}; allowed: above 0")

    def with_label_loss(self, loss: LabelLoss) -> TaskDistillationConfig:
        """Return the same settings with a loss for labels instead of the task's `hard_loss`, such as one with weights.

        Example:
            >>> from functools import partial
            >>> from edgemin_hf import TaskDistillationConfig
            >>> from edgemin_hf.tasks import TextClassification
            >>> smoothed = partial(TextClassification.hard_loss, label_smoothing=0.1)
            >>> TaskDistillationConfig().with_label_loss(smoothed).hard_weight
            0.5
        """
        return _WithLabelLoss(self.soft_weight, self.hard_weight, self.temperature, label_loss=loss)

    def objective(self, student: Encoder, teacher: Encoder | None) -> TaskDistillationObjective:
        """Build the objective for two models; the teacher may be None where its logits come with the inputs.

        Raises:
            ValueError: If no task knows the student's head, or the teacher has another, or their labels differ in names
                or order.
        """
        if student.model is student.base:
            raise ValueError(f"model: {type(student.model).__name__} without a head; allowed: {', '.join(TASKS)}")
        task = task_of(student.model)
        if teacher is not None and self.soft_weight:
            _check_teacher(task, student.config, named_config(teacher.model))
        return TaskDistillationObjective(self, task, student.config)


@dataclass
class _WithLabelLoss(TaskDistillationConfig):
    """The settings with a loss for labels, which is none of them: no record can hold it."""

    label_loss: LabelLoss = field(kw_only=True)

    def to_dict(self) -> dict[str, object]:
        return settings_of(self, TaskDistillationConfig)

    def objective(self, student: Encoder, teacher: Encoder | None) -> TaskDistillationObjective:
        found = super().objective(student, teacher)
        found.label_loss = self.label_loss
        return found


def _check_teacher(task: type[Task], student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    fits = task.compatible(teacher) and task_of(teacher).auto_class is task.auto_class
    if not fits or teacher.num_labels != student.num_labels:
        try:
            other = task_of(teacher)
            theirs = other.type if other.problem_type is None else f"problem_type {other.problem_type}"
        except ValueError:  # a head that no task has
            theirs = "problem_type None"
        raise ValueError(
            f"teacher_model: {theirs} with {teacher.num_labels} label(s); "
            f"allowed: the student's, {task.problem_type or task.type} with {student.num_labels}"
        )
    if task.compares_label_names and teacher.id2label != student.id2label:
        raise ValueError(
            f"teacher_model: labels {list(teacher.id2label.values())[:5]}...; "
            f"allowed: the student's, in the same order: {list(student.id2label.values())[:5]}..."
        )


class TaskDistillationObjective:
    """Soft and hard labels; the teacher's logits are taken from the inputs where they are there."""

    student_activations: Sequence[Activation] = ()
    teacher_activations: Sequence[Activation] = ()
    needs_student_logits = True
    projections = None

    def __init__(
        self,
        config: TaskDistillationConfig,
        task: type[Task],
        student: PretrainedConfig,
    ) -> None:
        self.config = config
        self.task, self._student = task, student
        self.label_loss: LabelLoss = task.hard_loss
        self.needs_teacher_logits = config.soft_weight > 0

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor | None]:
        """Return the terms `soft_labels` and `hard_labels`; not those of weight 0.

        Outside training None for the one without the teacher's logits, or the other without labels.

        Raises:
            ValueError: If the teacher's logits are missing or of another shape, or the labels missing in training.
        """
        config, labels, training = self.config, inputs.get("labels"), torch.is_grad_enabled()
        terms: dict[str, Tensor | None] = {}
        assert student.logits is not None  # noqa: S101 - needs_student_logits
        logits = student.logits.float()
        if config.soft_weight:
            target = inputs.get(TEACHER_LOGITS, teacher.logits)
            if target is None and training:
                raise ValueError(f"soft_weight: {config.soft_weight} without a teacher; allowed: 0 then")
            if target is not None and target.shape != logits.shape:
                raise ValueError(
                    f"{TEACHER_LOGITS}: {tuple(target.shape)}; allowed: {tuple(logits.shape)}, the student's"
                )
            terms["soft_labels"] = None
            if target is not None:
                pairs = zip(*(self.task.compared(one, self._student) for one in (logits, target)), strict=True)
                counted = inputs.get(COUNTED)
                losses = [self.task.soft_loss(ours, theirs, config.temperature, counted) for ours, theirs in pairs]
                terms["soft_labels"] = config.soft_weight * torch.stack(losses).sum()
        if config.hard_weight and labels is None and training:
            raise ValueError(f"hard_weight: {config.hard_weight} without labels in the data; allowed: 0 then")
        if config.hard_weight:
            terms["hard_labels"] = None if labels is None else config.hard_weight * self._hard_loss(logits, labels)
        return terms

    def _hard_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss with true labels, a mean over all examples: that of one without a label is 0."""
        known = labelled(labels)
        if known.all():
            return self.label_loss(logits, labels)
        if not known.any():
            return 0 * logits.sum()
        return known.float().mean() * self.label_loss(logits[known], labels[known])
