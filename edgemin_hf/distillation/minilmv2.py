"""MiniLMv2: the student learns the teacher's self-attention relations (Wang et al. 2021, arXiv 2012.15828)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from edgemin_hf.distillation.capture import Recording
from edgemin_hf.distillation.common import mask_of, need_teacher
from edgemin_hf.encoder import PROJECTIONS, Encoder, Shape, Tap, shape_of

# Elements of relation maps held at once on a CPU: small enough to stay in its cache, where the loss is fastest.
_CPU_CHUNK = 2**18
_GPU_CHUNK = 2**26


@dataclass
class MiniLMv2Config:
    """Settings of MiniLMv2 relation distillation.

    Only the student's last layer is compared, at its projections, so that layer's attention output and feed-forward
    network get no gradient from this loss.

    Attributes:
        teacher_layer: The teacher's layer to learn from, counted from 1; None is the last. The paper takes 12 of
            BERT-base, 21 of BERT-large and 19 of RoBERTa-large.
        relation_heads: Number of relation heads; it must divide both models' hidden sizes.
        relations: Pairs of projections, the first letter giving the rows of the relation.
        weights: Weight of each relation's loss, aligned with `relations`; None weighs all by one.
    """

    teacher_layer: int | None = None
    relation_heads: int = 48
    relations: tuple[str, ...] = ("qq", "kk", "vv")
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        self.relations = tuple(self.relations)
        _check_relations(self.relations, self.weights)
        if self.relation_heads < 1:
            raise ValueError(f"relation_heads: {self.relation_heads}; allowed: 1 or more")

    def check(self, student: Shape, teacher: Shape) -> None:
        """Checks these settings against two models' shapes.

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
        """Builds the objective for two models.

        Raises:
            ValueError: If there is no teacher, or `check` fails.
        """
        teacher = need_teacher(teacher, "MiniLMv2")
        # The projections' own widths: heads may have been removed.
        last = student.layers[-1].attention_width
        compared = teacher.layers[(self.teacher_layer or 0) - 1].attention_width
        self.check(
            shape_of(student.config)._replace(hidden_size=last), shape_of(teacher.config)._replace(hidden_size=compared)
        )
        return MiniLMv2Objective(self, student, teacher)


class MiniLMv2Objective:
    """Compares the last layer of the student with one layer of the teacher."""

    needs_student_logits = False
    needs_teacher_logits = False
    projections = None

    def __init__(self, config: MiniLMv2Config, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        used = [name for name in PROJECTIONS if name in "".join(config.relations)]
        teacher_layer = (config.teacher_layer or len(teacher.layers)) - 1
        self.student_taps = [Tap(len(student.layers) - 1, name) for name in used]
        self.teacher_taps = [Tap(teacher_layer, name) for name in used]

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns one term a relation, named `minilmv2_qq` and so on."""
        ours: dict[str, Tensor] = {tap.name: student.taps[tap] for tap in self.student_taps}
        theirs: dict[str, Tensor] = {tap.name: teacher.taps[tap] for tap in self.teacher_taps}
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
    """Computes the self-attention relation loss of MiniLMv2 (arXiv 2012.15828, section 3.1, equations 4 to 8).

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
    """
    _check_relations(relations, weights)
    mask = attention_mask != 0
    if not bool(mask.any(dim=1).all()):
        raise ValueError("attention_mask: an example has no real token; allowed: at least one in each")
    total: Tensor | None = None
    weights = (1.0,) * len(relations) if weights is None else weights
    for relation, weight in zip(relations, weights, strict=True):
        row, column = relation[0], relation[1]
        ours, theirs = (student[row], student[column]), (teacher[row], teacher[column])
        _check_shapes((*ours, *theirs), mask, relation_heads)
        loss = weight * _RelationKL.apply(*ours, *theirs, mask, relation_heads)
        total = loss if total is None else total + loss
    assert total is not None  # noqa: S101 - _check_relations refuses an empty list
    return total


def _check_relations(relations: Sequence[str], weights: Sequence[float] | None) -> None:
    allowed = [a + b for a in PROJECTIONS for b in PROJECTIONS]
    if not relations or len(set(relations)) < len(relations) or not set(relations) <= set(allowed):
        raise ValueError(f"relations: {list(relations)}; allowed: different pairs out of {', '.join(allowed)}")
    if weights is not None and (len(weights) != len(relations) or min(weights) < 0):
        raise ValueError(f"weights: {list(weights)}; allowed: {len(relations)} numbers, one a relation, none negative")


def _check_shapes(projections: Sequence[Tensor], mask: Tensor, relation_heads: int) -> None:
    for tensor in projections:
        if tensor.ndim != 3 or tensor.shape[:2] != mask.shape:
            raise ValueError(
                f"projection of shape {tuple(tensor.shape)}; allowed: {(*mask.shape, 'width')}, as the attention_mask"
            )
        if relation_heads < 1 or tensor.shape[-1] % relation_heads:
            raise ValueError(f"relation_heads: {relation_heads}; allowed: a divisor of the width {tensor.shape[-1]}")


class _RelationKL(torch.autograd.Function):
    """KL of one relation, with its gradient in closed form, computed chunk by chunk in the forward pass.

    d KL / d scores = softmax(student) - softmax(teacher), so no map outlives its chunk: what costs time and memory
    in this loss are (length x length) maps, not multiplications.
    """

    @staticmethod
    def forward(
        ctx: Any, s_row: Tensor, s_col: Tensor, t_row: Tensor, t_col: Tensor, mask: Tensor, heads: int
    ) -> Tensor:
        dtype = torch.float64 if s_row.dtype == torch.float64 else torch.float32
        batch, length = mask.shape
        # An example's rows weigh 1 / (relation heads * real tokens), an example 1 / batch.
        row_weight = mask.to(dtype) / (mask.sum(1, keepdim=True) * heads * batch)
        row_weight = row_weight.repeat_interleave(heads, 0)
        # A finite bias instead of -inf: a padded column then adds 0 * (finite - finite), never a NaN.
        bias = None
        if not bool(mask.all()):
            bias = torch.zeros(batch, 1, length, dtype=dtype, device=mask.device).masked_fill_(~mask[:, None], -1e30)
            bias = bias.repeat_interleave(heads, 0)
        needs_grad = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        with torch.autocast(s_row.device.type, enabled=False):
            projections = [_split_heads(tensor, heads, dtype) for tensor in (s_row, s_col, t_row, t_col)]
            loss, *grads = _chunked_kl(projections, row_weight, bias, needs_grad)
        if needs_grad:
            ctx.save_for_backward(
                *(_merge_heads(g, heads).to(s.dtype) for g, s in zip(grads, (s_row, s_col), strict=True))
            )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        row, column = ctx.saved_tensors
        return grad_output * row, grad_output * column, None, None, None, None


def _split_heads(tensor: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """(batch, length, width) -> (batch * heads, length, width / heads)."""
    batch, length, width = tensor.shape
    return tensor.to(dtype).view(batch, length, heads, width // heads).transpose(1, 2).flatten(0, 1)


def _merge_heads(tensor: Tensor, heads: int) -> Tensor:
    """(batch * heads, length, width / heads) -> (batch, length, width)."""
    return tensor.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def _chunked_kl(
    projections: Sequence[Tensor], row_weight: Tensor, bias: Tensor | None, grad: bool
) -> tuple[Tensor, ...]:
    """Returns the loss and, where `grad`, its gradients for the student's two projections.

    `projections` are the student's rows and columns and the teacher's, all as by `_split_heads`.
    """
    s_row, s_col, t_row, t_col = projections
    length = s_row.shape[1]
    chunk = max(1, (_GPU_CHUNK if s_row.is_cuda else _CPU_CHUNK) // length**2)
    s_scale, t_scale = s_row.shape[-1] ** -0.5, t_row.shape[-1] ** -0.5
    loss = s_row.new_zeros(())
    grad_row, grad_col = (torch.empty_like(s_row), torch.empty_like(s_col)) if grad else (None, None)
    for start in range(0, s_row.shape[0], chunk):
        part = slice(start, start + chunk)
        log_t = _log_relation(t_row[part] * t_scale, t_col[part], None if bias is None else bias[part])
        log_s = _log_relation(s_row[part] * s_scale, s_col[part], None if bias is None else bias[part])
        p_t = log_t.exp()
        loss += (torch.linalg.vecdot(p_t, log_t.sub_(log_s)) * row_weight[part]).sum()
        if grad_row is not None and grad_col is not None:
            grad_scores = log_s.exp_().sub_(p_t).mul_((row_weight[part] * s_scale)[..., None])
            torch.bmm(grad_scores, s_col[part], out=grad_row[part])
            torch.bmm(grad_scores.transpose(1, 2), s_row[part], out=grad_col[part])
    return (loss,) if grad_row is None or grad_col is None else (loss, grad_row, grad_col)


def _log_relation(rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    transposed = columns.transpose(1, 2)
    scores = torch.bmm(rows, transposed) if bias is None else torch.baddbmm(bias, rows, transposed)
    return torch.log_softmax(scores, dim=-1)
