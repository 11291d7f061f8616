"""MiniLM: the student learns the last layer's attention and value relations (Wang et al. 2020, arXiv 2002.10957)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import check_weights, mask_of, mean_over_tokens, need_teacher, recorded_scores
from edgemin_hf.distillation.relations import relation_kl
from edgemin_hf.modeling.attention import check_scores, reach, scores_are_products
from edgemin_hf.modeling.encoder import Activation, Encoder, Layer, Projection
from edgemin_hf.modeling.families import Shape, shape_of
from edgemin_hf.modeling.hooks import Recording

_LOGGER = logging.getLogger(__name__)


@dataclass
class MiniLMConfig(Method):
    """Settings of MiniLM distillation: last layer against last layer, head by head.

    The head counts must be equal. Where the student has at most half the teacher's layers and half its width, the
    paper puts an assistant between them: the teacher's depth, the student's width (section 3.3).

    Attributes:
        attention_weight: Weight of the attention distributions' loss (equation 6).
        value_weight: Weight of the value relations' loss (equation 9).

    Example:
        >>> from edgemin_hf import MiniLMConfig
        >>> MiniLMConfig(attention_weight=1.0, value_weight=0.5).to_dict()
        {'attention_weight': 1.0, 'value_weight': 0.5}
    """

    method: ClassVar[str] = "minilm"

    attention_weight: float = 1.0
    value_weight: float = 1.0

    def __post_init__(self) -> None:
        check_weights(self, "attention_weight", "value_weight")

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If the head counts differ.
        """
        ours, theirs = student.num_attention_heads, teacher.num_attention_heads
        if ours != theirs:
            raise ValueError(
                f"num_attention_heads: {ours}; allowed: {theirs}, the teacher's, since MiniLM compares head with head "
                "(MiniLMv2 leaves the number free)"
            )

    def objective(self, student: Encoder, teacher: Encoder | None) -> MiniLMObjective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher, the head counts differ, or attention can't be compared.
        """
        teacher = need_teacher(teacher, "MiniLM")
        self.check_shapes(_shape(student.layers[-1]), _shape(teacher.layers[-1]))
        for encoder in (student, teacher):
            check_scores(encoder)
        seen = [reach(encoder, len(encoder.layers) - 1) for encoder in (student, teacher)]
        if self.attention_weight and seen[0] < seen[1]:
            raise ValueError(
                f"num_hidden_layers: {len(student.layers)}, whose last layer sees {seen[0]} tokens to either side and "
                "the teacher's more; allowed: a depth whose last layer sees as far, or attention_weight 0"
            )
        ours, theirs = shape_of(student.config), shape_of(teacher.config)
        if 2 * ours.num_hidden_layers <= theirs.num_hidden_layers and 2 * ours.hidden_size <= theirs.hidden_size:
            _LOGGER.warning(
                "the student has %d x %d of the teacher's %d x %d layers and width: for so small a student MiniLM "
                "advises an assistant of %d x %d between them",
                *ours[:2], *theirs[:2], theirs.num_hidden_layers, ours.hidden_size,
            )  # fmt: skip
        return MiniLMObjective(self, student, teacher)


def _shape(layer: Layer) -> Shape:
    return Shape(1, layer.attention_width, layer.num_heads, layer.num_neurons)


class MiniLMObjective:
    """Compare the last layers of two models."""

    needs_student_logits = False
    needs_teacher_logits = False
    projections = None

    def __init__(self, config: MiniLMConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self.student, self.teacher = student, teacher
        names: list[Projection] = ["q", "k"] if config.attention_weight else []
        names += ["v"] if config.value_weight else []
        self.student_activations = [Activation(len(student.layers) - 1, name) for name in names]
        self.teacher_activations = [Activation(len(teacher.layers) - 1, name) for name in names]

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms `minilm_attention` and `minilm_values`; not those of weight 0."""
        ours: dict[str, Tensor] = {
            activation.name: student.activations[activation] for activation in self.student_activations
        }
        theirs: dict[str, Tensor] = {
            activation.name: teacher.activations[activation] for activation in self.teacher_activations
        }
        mask, heads = mask_of(inputs), self.student.layers[-1].num_heads
        config, terms = self.config, dict[str, Tensor]()
        if config.attention_weight and scores_are_products(self.student) and scores_are_products(self.teacher):
            # softmax(QK^T / sqrt(d_k)) is the relation of queries with keys, whose maps are never held as a whole.
            loss = relation_kl(ours["q"], ours["k"], theirs["q"], theirs["k"], mask, heads)
            terms["minilm_attention"] = config.attention_weight * loss
        elif config.attention_weight:
            scores = recorded_scores(self.student, student, len(self.student.layers) - 1)
            with torch.no_grad():
                target = recorded_scores(self.teacher, teacher, len(self.teacher.layers) - 1)
            terms["minilm_attention"] = config.attention_weight * attention_kl(scores, target, mask)
        if config.value_weight:
            loss = relation_kl(ours["v"], ours["v"], theirs["v"], theirs["v"], mask, heads)
            terms["minilm_values"] = config.value_weight * loss
        return terms


def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compute the attention transfer loss of MiniLM (arXiv 2002.10957, equation 6) from scores.

    KL(teacher || student) of the attention distributions, averaged over heads and the real rows of an example, then
    over examples; padding gets no attention.

    Args:
        student: Scaled scores before softmax (batch, heads, length, length).
        teacher: Likewise; no gradient flows to them.
        mask: Which tokens are real, bool (batch, length).

    Returns:
        The scalar loss, float32 or float64.
    """
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    hidden = ~mask[:, None, None]
    log_s, log_t = (
        scores.to(dtype).masked_fill(hidden, -1e30).log_softmax(dim=-1) for scores in (student, teacher.detach())
    )
    return mean_over_tokens((log_t.exp() * (log_t - log_s)).sum(dim=-1).mean(dim=1), mask)
