"""The KL divergence of relations: how a teacher's tokens resemble each other, against how a student's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Elements of relation maps held at once on a CPU: small enough to stay in its cache, where the loss is fastest.
_CPU_CHUNK = 2**18
_GPU_CHUNK = 2**26


def relation_kl(
    student_rows: Tensor,
    student_columns: Tensor,
    teacher_rows: Tensor,
    teacher_columns: Tensor,
    mask: Tensor,
    heads: int,
) -> Tensor:
    """Computes KL(teacher || student) of the relations softmax(rows columns^T / sqrt(d_r)).

    Rows and columns are split into heads of width d_r. The divergence is averaged over heads and the real rows of an
    example, then over examples. No map outlives the forward pass, and few are held at once.

    Args:
        student_rows: Float tensor (batch, length, width); likewise `student_columns`, which may be the same one.
        student_columns: What the student's rows are compared with.
        teacher_rows: (batch, length, width), the width of the teacher; no gradient flows to it.
        teacher_columns: What the teacher's rows are compared with.
        mask: Which tokens are real, bool (batch, length); the others, anywhere, are neither rows nor columns.
        heads: Number of heads; must divide both widths.

    Returns:
        The scalar loss: float64 for a float64 student, else float32. Maps and softmax are computed in that dtype.

    Raises:
        ValueError: If shapes do not fit or an example has no real token.
    """
    if not bool(mask.any(dim=1).all()):
        raise ValueError("attention_mask: an example has no real token; allowed: at least one in each")
    _check_shapes((student_rows, student_columns, teacher_rows, teacher_columns), mask, heads)
    return _RelationKL.apply(student_rows, student_columns, teacher_rows, teacher_columns, mask, heads)


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
