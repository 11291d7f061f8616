"""PKD: the student learns [CLS] of many layers, not the last alone (Sun et al. 2019, arXiv 1908.09355)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import mask_of, need_teacher, uniform_layers
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.families import Shape, shape_of
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.modeling.pooling import first_tokens


@dataclass
class PKDConfig(Method):
    """Settings of PKD's own term, which stands beside task distillation. Both models need the same width.

    The paper's loss, (1 - alpha) CE + alpha KD + beta PT, is

        distillation_config=[
            TaskDistillationConfig(soft_weight=alpha, hard_weight=1 - alpha, temperature=T), PKDConfig(beta)
        ]

    The authors' best runs have T from 5 to 20 and alpha from 0.2 to 0.7. (Their code multiplies KD by T^2, as here,
    but divides it by the number of labels too.)

    Every student layer but the last is compared: the last one's teacher is the prediction. With M student and L
    teacher layers, counted from 1, student layer m learns from teacher layer

        skip: m * L / M, rounded up, such as 2, 4, 6, 8, 10 for 6 of 12;
        last: L - M + m, such as 7, 8, 9, 10, 11 for 6 of 12.

    Attributes:
        beta: Weight of the term. The authors' 10 to 1000 belong to their code, which divides equation 7 by the number
            of compared layers and by the width: 500, its example for 6 of 12 layers of width 768, is
            500 / (5 * 768) = 0.13 here.
        strategy: Which teacher layers to learn from.
        layers: The teacher's layers, counted from 1, one for each student layer but the last; None takes the
            strategy's.

    Example:
        >>> from edgemin_hf import PKDConfig
        >>> PKDConfig(strategy="last").to_dict()
        {'beta': 0.13, 'strategy': 'last', 'layers': None}
    """

    method: ClassVar[str] = "pkd"

    beta: float = 0.13
    strategy: Literal["skip", "last"] = "skip"
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.beta < inf:
            raise ValueError(f"beta: {self.beta}; allowed: above 0")
        if self.strategy not in ("skip", "last"):
            raise ValueError(f"strategy: {self.strategy}; allowed: skip, last")
        self.layers = None if self.layers is None else tuple(self.layers)

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If the widths differ, there is nothing to compare, or the teacher has no such layers.
        """
        depth, limit = student.num_hidden_layers, teacher.num_hidden_layers
        if student.hidden_size != teacher.hidden_size:
            raise ValueError(
                f"hidden_size: {student.hidden_size}; allowed: {teacher.hidden_size}, the teacher's, since PKD "
                "compares hidden states as they are"
            )
        if depth < 2:
            raise ValueError("num_hidden_layers: 1; allowed: 2 or more, since PKD leaves out the student's last layer")
        if self.layers is None and depth > limit:
            raise ValueError(f"num_hidden_layers: {depth}; allowed: up to {limit}, the teacher's")
        if self.layers is not None and (
            len(self.layers) != depth - 1 or not all(1 <= layer <= limit for layer in self.layers)
        ):
            raise ValueError(
                f"layers: {list(self.layers)}; allowed: {depth - 1} numbers from 1 to {limit}, a layer of the teacher "
                "for each of the student's but the last"
            )

    def objective(self, student: Encoder, teacher: Encoder | None) -> PKDObjective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher, or `check_shapes` fails.
        """
        teacher = need_teacher(teacher, "PKD")
        self.check_shapes(shape_of(student.config), shape_of(teacher.config))
        return PKDObjective(self, student, teacher)

    def _teacher_layers(self, student: Encoder, teacher: Encoder) -> list[int]:
        """Return the teacher's layers, counted from 0, for the student's in their order."""
        depth, limit = len(student.layers), len(teacher.layers)
        if self.layers is not None:
            return [layer - 1 for layer in self.layers]
        if self.strategy == "last":
            return list(range(limit - depth, limit - 1))
        return uniform_layers(student, teacher)[:-1]


class PKDObjective:
    """Compare [CLS] after every student layer but the last."""

    needs_student_logits = False
    needs_teacher_logits = False
    projections = None

    def __init__(self, config: PKDConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self.student_activations = [Activation(layer, "output") for layer in range(len(student.layers) - 1)]
        self.teacher_activations = [Activation(layer, "output") for layer in config._teacher_layers(student, teacher)]

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the term `pkd_patience`."""
        mask = mask_of(inputs)
        ours = torch.stack(
            [first_tokens(student.activations[activation], mask) for activation in self.student_activations], dim=1
        )
        theirs = torch.stack(
            [first_tokens(teacher.activations[activation], mask) for activation in self.teacher_activations], dim=1
        )
        return {"pkd_patience": self.config.beta * patience_loss(ours, theirs)}


def patience_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the patient-teacher loss (arXiv 1908.09355, equation 7).

    The sum over layers of || h_s / ||h_s|| - h_t / ||h_t|| ||^2, which is 2 - 2 cos(h_s, h_t), and the mean over
    examples, where the paper sums. (The authors' code takes the mean over layers and width too.)

    Args:
        student: Hidden states of [CLS] after the compared layers, (batch, layers, width).
        teacher: Those of the layers that they learn from, (batch, layers, width); no gradient flows to them.

    Returns:
        The scalar loss: float64 for a float64 student, else float32.
    """
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    ours, theirs = (F.normalize(states.to(dtype), dim=-1) for states in (student, teacher.detach()))
    return (ours - theirs).square().sum(dim=(1, 2)).mean()
