"""Task distillation: the teacher's softened predictions and the true labels (Hinton et al. 2015, arXiv 1503.02531)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemin_hf.distillation.capture import Recording
from edgemin_hf.distillation.common import check_weights
from edgemin_hf.encoder import Encoder, Tap

TEACHER_LOGITS = "teacher_logits"
"""Name of the input that carries logits which the teacher computed beforehand, (batch, labels)."""


@dataclass
class TaskDistillationConfig:
    """Settings of task distillation. Hard labels alone are plain fine-tuning, and need no teacher.

    Attributes:
        soft_weight: Weight of the teacher's softened predictions.
        hard_weight: Weight of the cross-entropy with the true labels.
        temperature: Temperature of the soft labels; their loss is multiplied by its square, so that their gradients
            keep their size (section 2 of the paper).
    """

    soft_weight: float = 0.5
    hard_weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_weights(self, "soft_weight", "hard_weight")
        if not 0 < self.temperature < inf:
            raise ValueError(f"temperature: {self.temperature}; allowed: above 0")

    def objective(self, student: Encoder, teacher: Encoder | None) -> TaskDistillationObjective:
        """Builds the objective for two models; the teacher may be None where its logits come with the inputs.

        Raises:
            ValueError: If the student is no single-label classifier, or the models' labels differ in names or order.
        """
        if student.model is student.base:
            raise ValueError(f"model: {type(student.model).__name__} without a head; allowed: a classifier")
        if student.config.problem_type not in (None, "single_label_classification") or student.config.num_labels < 2:
            raise ValueError(
                f"model: problem_type {student.config.problem_type} with {student.config.num_labels} label(s); "
                "allowed: single_label_classification with two or more"
            )
        labels = student.config.id2label
        if teacher is not None and self.soft_weight and teacher.config.id2label != labels:
            raise ValueError(
                f"teacher_model: labels {list(teacher.config.id2label.values())[:5]}...; "
                f"allowed: the student's, in the same order: {list(labels.values())[:5]}..."
            )
        return TaskDistillationObjective(self)


class TaskDistillationObjective:
    """Soft and hard labels; the teacher's logits are taken from the inputs where they are there."""

    student_taps: Sequence[Tap] = ()
    teacher_taps: Sequence[Tap] = ()
    needs_student_logits = True
    projections = None

    def __init__(self, config: TaskDistillationConfig) -> None:
        self.config = config
        self.needs_teacher_logits = config.soft_weight > 0

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the terms `soft_labels` and `hard_labels`; not those of weight 0, nor hard ones without labels.

        Raises:
            ValueError: If the teacher's logits are missing, or the labels in training.
        """
        config, terms = self.config, {}
        assert student.logits is not None  # noqa: S101 - needs_student_logits
        logits = student.logits.float()
        if config.soft_weight:
            target = inputs.get(TEACHER_LOGITS, teacher.logits)
            if target is None:
                raise ValueError(f"soft_weight: {config.soft_weight} without a teacher; allowed: 0 then")
            terms["soft_labels"] = config.soft_weight * soft_label_loss(logits, target, config.temperature)
        if config.hard_weight and inputs.get("labels") is None and torch.is_grad_enabled():
            raise ValueError(f"hard_weight: {config.hard_weight} without labels in the data; allowed: 0 then")
        if config.hard_weight and inputs.get("labels") is not None:
            terms["hard_labels"] = config.hard_weight * F.cross_entropy(logits, inputs["labels"])
        return terms


def soft_label_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Computes T^2 KL(softmax(teacher / T) || softmax(student / T)), a mean over examples.

    Args:
        student: Logits (batch, labels).
        teacher: Logits (batch, labels); no gradient flows to them.
        temperature: T.

    Returns:
        The scalar loss.
    """
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.detach().to(student.dtype) / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
