"""MiniLMv2: the student learns the teacher's self-attention relations (Wang et al. 2021, arXiv 2012.15828)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import mask_of, need_teacher
from edgemin_hf.distillation.relations import relation_kl
from edgemin_hf.modeling.encoder import PROJECTIONS, Activation, Encoder
from edgemin_hf.modeling.families import Shape, shape_of
from edgemin_hf.modeling.hooks import Recording


@dataclass
class MiniLMv2Config(Method):
    """Settings of MiniLMv2 relation distillation.

    Only the student's last layer is compared, at its projections, so that layer's attention output and feed-forward
    network get no gradient from this loss.

    Attributes:
        teacher_layer: The teacher's layer to learn from, counted from 1; None is the last. The paper takes 12 of
            BERT-base, 21 of BERT-large and 19 of RoBERTa-large.
        relation_heads: Number of relation heads; it must divide both models' hidden sizes.
        relations: Pairs of projections, the first letter giving the rows of the relation.
        weights: Weight of each relation's loss, aligned with `relations`; None weighs all by one.

    Example:
        >>> from edgemin_hf import MiniLMv2Config
        >>> MiniLMv2Config(teacher_layer=6, relation_heads=48).relations
        ('qq', 'kk', 'vv')
    """

    method: ClassVar[str] = "minilmv2"

    teacher_layer: int | None = None
    relation_heads: int = 48
    relations: tuple[str, ...] = ("qq", "kk", "vv")
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self.relations = tuple(self.relations)
        _check_relations(self.relations, self.weights)
        if self.relation_heads < 1:
            raise ValueError(f"relation_heads: {self.relation_heads}; allowed: 1 or more")

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If the teacher has no such layer, or the relation heads do not divide a width.
        """
        depth = teacher.num_hidden_layers
        if self.teacher_layer is not None and not 1 <= self.teacher_layer <= depth:
            raise ValueError(f"teacher_layer: {self.teacher_layer}; allowed: 1 to {depth}, the teacher's layers")
        for whose, width in (("student", student.hidden_size), ("teacher", teacher.hidden_size)):
            if width % self.relation_heads:
                raise ValueError(
                    f"relation_heads: {self.relation_heads}; allowed: a divisor of the {whose}'s width {width}"
                )

    def objective(self, student: Encoder, teacher: Encoder | None) -> MiniLMv2Objective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher, or `check_shapes` fails.
        """
        teacher = need_teacher(teacher, "MiniLMv2")
        # The projections' own widths: heads may have been removed.
        last = student.layers[-1].attention_width
        compared = teacher.layers[(self.teacher_layer or 0) - 1].attention_width
        self.check_shapes(
            shape_of(student.config)._replace(hidden_size=last), shape_of(teacher.config)._replace(hidden_size=compared)
        )
        return MiniLMv2Objective(self, student, teacher)


class MiniLMv2Objective:
    """Compare the last layer of the student with one layer of the teacher."""

    needs_student_logits = False
    needs_teacher_logits = False
    projections = None

    def __init__(self, config: MiniLMv2Config, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        used = [name for name in PROJECTIONS if name in "".join(config.relations)]
        teacher_layer = (config.teacher_layer or len(teacher.layers)) - 1
        self.student_activations = [Activation(len(student.layers) - 1, name) for name in used]
        self.teacher_activations = [Activation(teacher_layer, name) for name in used]

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one term a relation, named `minilmv2_qq` and so on."""
        ours: dict[str, Tensor] = {
            activation.name: student.activations[activation] for activation in self.student_activations
        }
        theirs: dict[str, Tensor] = {
            activation.name: teacher.activations[activation] for activation in self.teacher_activations
        }
        mask = mask_of(inputs)
        weights = (1.0,) * len(self.config.relations) if self.config.weights is None else self.config.weights
        heads = self.config.relation_heads
        return {
            f"minilmv2_{relation}": minilmv2_loss(ours, theirs, mask, heads, (relation,), (weight,))
            for relation, weight in zip(self.config.relations, weights, strict=True)
        }


def minilmv2_loss(
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    attention_mask: Tensor,
    relation_heads: int,
    relations: Sequence[str] = ("qq", "kk", "vv"),
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Compute the self-attention relation loss of MiniLMv2 (arXiv 2012.15828, section 3.1, equations 4 to 8).

    The heads of a projection are concatenated and split again into `relation_heads` heads of width d_r. A relation is
    softmax(Y1 Y2^T / sqrt(d_r)); the loss is KL(teacher || student), averaged over relation heads and the real rows of
    an example, then over examples, and summed over relations.

    Args:
        student: Projections "q", "k", "v", as far as `relations` names them: float tensors (batch, length, width).
        teacher: Likewise; its width may differ. No gradient flows to it.
        attention_mask: (batch, length), 1 for real tokens and 0 for padding, which may stand anywhere.
        relation_heads: Number of relation heads; must divide both widths.
        relations: Pairs of projections; the first letter gives the rows.
        weights: Weights aligned with `relations`; None weighs all by one.

    Returns:
        The scalar loss: float64 for a float64 student, else float32. Maps and softmax are computed in that dtype.

    Raises:
        ValueError: If shapes do not fit, an example has no real token, or `relations` or `weights` are not possible.

    Example:
        >>> import torch
        >>> from edgemin_hf import minilmv2_loss
        >>> student, teacher = ({name: torch.randn(2, 5, width) for name in "qkv"} for width in (24, 48))
        >>> minilmv2_loss(student, teacher, torch.ones(2, 5), relation_heads=12).shape
        torch.Size([])
    """
    _check_relations(relations, weights)
    mask = attention_mask != 0
    total: Tensor | None = None
    weights = (1.0,) * len(relations) if weights is None else weights
    for relation, weight in zip(relations, weights, strict=True):
        row, column = relation[0], relation[1]
        loss = weight * relation_kl(student[row], student[column], teacher[row], teacher[column], mask, relation_heads)
        total = loss if total is None else total + loss
    assert total is not None  # noqa: S101 - _check_relations refuses an empty list
    return total


def _check_relations(relations: Sequence[str], weights: Sequence[float] | None) -> None:
    allowed = [a + b for a in PROJECTIONS for b in PROJECTIONS]
    if not relations or len(set(relations)) < len(relations) or not set(relations) <= set(allowed):
        raise ValueError(f"relations: {list(relations)}; allowed: different pairs out of {', '.join(allowed)}")
    if weights is not None and (len(weights) != len(relations) or min(weights) < 0):
        raise ValueError(f"weights: {list(weights)}; allowed: {len(relations)} numbers, one a relation, none negative")
