"""The KL divergence of relations: how a teacher's tokens resemble each other, against how a student's do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

# Elements of relation maps held at once on a CPU: small enough to stay in its cache, where the loss is fastest.
_CPU_CHUNK = 2**19
_GPU_CHUNK = 2**26


def relation_kl(
    student_rows: Tensor,
    student_columns: Tensor,
    teacher_rows: Tensor,
    teacher_columns: Tensor,
    mask: Tensor,
    heads: int,
) -> Tensor:
    """Compute KL(teacher || student) of the relations softmax(rows columns^T / sqrt(d_r)).

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
    dtype = torch.float64 if student_rows.dtype == torch.float64 else torch.float32
    # Columns that are the rows are not copied twice, and their two gradients are one.
    s_columns = None if student_columns is student_rows else student_columns
    t_columns = None if teacher_columns is teacher_rows else teacher_columns
    return _RelationKL.apply(student_rows, s_columns, teacher_rows, t_columns, _Layout(mask, heads, dtype))


def _check_shapes(projections: Sequence[Tensor], mask: Tensor, relation_heads: int) -> None:
    for tensor in projections:
        if tensor.ndim != 3 or tensor.shape[:2] != mask.shape:
            raise ValueError(
                f"projection of shape {tuple(tensor.shape)}; allowed: {(*mask.shape, 'width')}, as the attention_mask"
            )
        if relation_heads < 1 or tensor.shape[-1] % relation_heads:
            raise ValueError(f"relation_heads: {relation_heads}; allowed: a divisor of the width {tensor.shape[-1]}")


class _Layout:
    """Where the real tokens of a batch are, so that next to no map is computed for padding.

    Examples are ordered from the longest to the shortest, the real tokens of each before its padding: a chunk of maps
    is then as long as the first example in it. `maps` counts examples times relation heads.

    Args:
        mask: (batch, length), True for real tokens; at least one in each example.
        heads: Number of relation heads.
        dtype: Dtype of the maps.
    """

    def __init__(self, mask: Tensor, heads: int, dtype: torch.dtype) -> None:
        self.heads, self.dtype, self.shape = heads, dtype, mask.shape
        lengths, order = mask.sum(1).sort(descending=True)
        self._lengths: list[int] = lengths.tolist()
        longest = self._lengths[0]
        real_first = mask[order].int().argsort(dim=1, descending=True, stable=True)[:, :longest]
        self._tokens = order[:, None] * mask.shape[1] + real_first
        real = torch.arange(longest, device=mask.device) < lengths[:, None]
        # An example's rows weigh 1 / (relation heads * real tokens), an example 1 / batch; padding weighs nothing.
        weights = real.to(dtype) / (lengths[:, None] * heads * len(mask))
        self._weights = weights.repeat_interleave(heads, 0)

    def split(self, tensor: Tensor) -> Tensor:
        """Split heads and leave out padding: (batch, length, width) -> (maps, longest, width / heads)."""
        tokens = tensor.flatten(0, 1)[self._tokens].to(self.dtype)
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)

    def merge(self, tensor: Tensor) -> Tensor:
        """Return the inverse of `split`, with zeros for padding."""
        tokens = tensor.unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
        merged = tokens.new_zeros(self.shape.numel(), tokens.shape[-1])
        merged[self._tokens] = tokens
        return merged.unflatten(0, self.shape)

    def chunks(self) -> Iterator[tuple[slice, int, Tensor, Tensor | None]]:
        """Yield which maps to compute at once, their length n, their rows' weights, and a bias for their columns.

        The weights are (maps, n); the bias is (maps, 1, n), or None where the chunk holds no padding.
        """
        elements = _GPU_CHUNK if self._weights.is_cuda else _CPU_CHUNK
        start, end = 0, len(self._weights)
        while start < end:
            length = self._lengths[start // self.heads]
            part = slice(start, min(end, start + max(1, elements // length**2)))
            weights = self._weights[part, :length]
            shortest = self._lengths[(part.stop - 1) // self.heads]
            # A finite bias instead of -inf: a padded column then adds 0 * (finite - finite), never a NaN.
            bias = None if shortest == length else torch.where(weights == 0, -1e30, 0.0).to(self.dtype)[:, None]
            yield part, length, weights, bias
            start = part.stop


class _RelationKL(torch.autograd.Function):
    """KL of one relation, with its gradient in closed form, computed chunk by chunk in the forward pass.

    d KL / d scores = softmax(student) - softmax(teacher), so no map outlives its chunk: what costs time and memory
    in this loss are (length x length) maps, not multiplications. Columns that are None are the rows. The gradient is
    kept in the precision of the maps, whatever that of the tensors compared.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, s_row: Tensor, s_col: Tensor | None, t_row: Tensor, t_col: Tensor | None, layout: _Layout
    ) -> Tensor:
        with torch.autocast(s_row.device.type, enabled=False):
            student, teacher = layout.split(s_row), layout.split(t_row)
            student_columns = student if s_col is None else layout.split(s_col)
            teacher_columns = teacher if t_col is None else layout.split(t_col)
            grads: tuple[Tensor, Tensor] | None = None
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                grad = torch.zeros_like(student)
                grads = (grad, grad if s_col is None else torch.zeros_like(student))
            loss = _chunked_kl((student, student_columns), (teacher, teacher_columns), layout, grads)
        if grads is not None:
            wanted = grads[:1] if s_col is None else grads
            ctx.save_for_backward(*(layout.merge(g) for g in wanted))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        # Autograd rounds to the inputs' precision only now: unscaled, much of a gradient would be zero in fp16.
        row, *column = (grad_output * grad for grad in ctx.saved_tensors)
        return row, column[0] if column else None, None, None, None


def _chunked_kl(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    layout: _Layout,
    grads: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return the loss, and add to `grads`, where given, its gradients for the student's rows and columns.

    All of them, rows and columns, are as by `_Layout.split`.
    """
    s_scale, t_scale = (side[0].shape[-1] ** -0.5 for side in (student, teacher))
    loss = student[0].new_zeros(())
    for part, length, weights, bias in layout.chunks():
        s_row, s_col, t_row, t_col = (tensor[part, :length] for tensor in (*student, *teacher))
        log_t = torch.log_softmax(_scores(t_row * t_scale, t_col, bias), dim=-1)
        scores = _scores(s_row * s_scale, s_col, bias)
        with torch.set_grad_enabled(grads is not None):
            log_s = torch.log_softmax(scores.requires_grad_(grads is not None), dim=-1)
        p_t = log_t.exp()
        loss += (log_t.sub_(log_s.detach()).mul_(p_t).sum(-1) * weights).sum()
        if grads is not None:
            # p_t - p_s, in one pass over the maps where written out it would be two.
            (difference,) = torch.autograd.grad(log_s, scores, p_t)
            weights = (-s_scale * weights)[..., None]
            # (width, n) x (n, n) products: BLAS needs several times as long for (n, n) x (n, width).
            row = torch.bmm(s_col.transpose(1, 2), difference.transpose(1, 2)).transpose(1, 2)
            grads[0][part, :length] += row * weights
            grads[1][part, :length] += torch.bmm((s_row * weights).transpose(1, 2), difference).transpose(1, 2)
    return loss


def _scores(rows: Tensor, columns: Tensor, bias: Tensor | None) -> Tensor:
    transposed = columns.transpose(1, 2)
    return torch.bmm(rows, transposed) if bias is None else torch.baddbmm(bias, rows, transposed)
