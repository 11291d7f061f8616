"""The packed form of INT4 weights: what is exported.

Two integers share a byte, the first in its lower half, and each is stored with 8 added. Linear layers are MatMulNBits
of ONNX Runtime, which takes 8 for the zero point. Tables are read by ONNX's own operators: GatherBlockQuantized saves
4% of a short text's time, but takes packed bytes from ONNX Runtime 1.23 on alone. In PyTorch these modules compute the
same numbers as their fake-quantised sources.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from edgemin_hf.quantization.int4 import FakeInt4Linear, group_integers

if TYPE_CHECKING:
    from torch._C import Value
    from torch.onnx._internal.torchscript_exporter.jit_utils import GraphContext

    from edgemin_hf.quantization.native import FakeQuantEmbedding


def pack(integers: Tensor) -> Tensor:
    """Pack integers from -8 to 7, (..., 2 n), into bytes (..., n)."""
    stored = (integers + 8).to(torch.uint8)
    return stored[..., 0::2] | (stored[..., 1::2] << 4)


def unpack(stored: Tensor) -> Tensor:
    """Return the integers (..., 2 n), as float32, that bytes (..., n) hold."""
    return torch.stack([stored & 15, stored >> 4], dim=-1).flatten(-2).float() - 8


class _PackedProduct(torch.autograd.Function):
    """x W^T with W in packed groups; `symbolic` writes it as MatMulNBits, whose shape the exporter has to be told."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, scales: Tensor, rank: int, inputs: int) -> Tensor:
        return x @ (unpack(weight) * scales[..., None]).flatten(-2)[:, :inputs].T

    @staticmethod
    def symbolic(g: GraphContext, x: Value, weight: Value, scales: Value, rank: int, inputs: int) -> Value:
        outputs, _, half = weight.type().sizes()
        # accuracy_level 1 computes in float32. Level 4 would round the input to int8 on the way, which nobody trained.
        product = g.op(
            "com.microsoft::MatMulNBits",
            x, weight, scales, K_i=inputs, N_i=outputs, bits_i=4, block_size_i=2 * half, accuracy_level_i=1,
        )  # fmt: skip
        return product.setType(scales.type().with_sizes([None] * (rank - 1) + [outputs]))


class _PackedRows(torch.autograd.Function):
    """Rows of a table in packed groups; `symbolic` writes them without asking for shapes, as the exporter would."""

    @staticmethod
    def forward(ctx: FunctionCtx, ids: Tensor, weight: Tensor, scales: Tensor, rank: int) -> Tensor:
        return (unpack(weight[ids]).unflatten(-1, (scales.shape[1], -1)) * scales[ids]).flatten(-2)

    @staticmethod
    def symbolic(g: GraphContext, ids: Value, weight: Value, scales: Value, rank: int) -> Value:
        def constant(value: float | list[int], dtype: torch.dtype = torch.int64) -> Value:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        width, groups = 2 * weight.type().sizes()[-1], scales.type().sizes()[1]
        read = g.op("Gather", weight, ids, axis_i=0)
        lower, above = (g.op("BitwiseAnd", read, constant(mask, torch.uint8)) for mask in (15, 240))
        # Of the upper half alone: OpenVINO shifts by a division that keeps the fraction.
        upper = g.op("BitShift", above, constant(4, torch.uint8), direction_s="RIGHT")
        halves = [g.op("Unsqueeze", half, constant([-1])) for half in (lower, upper)]
        stored = g.op("Cast", g.op("Concat", *halves, axis_i=-1), to_i=torch.onnx.TensorProtoDataType.FLOAT)
        integers = g.op("Sub", stored, constant(8, torch.float32))
        grouped = g.op("Reshape", integers, constant([0] * rank + [groups, -1]))
        scaled = g.op("Mul", grouped, g.op("Gather", scales, ids, axis_i=0))
        rows = g.op("Reshape", scaled, constant([0] * rank + [-1]))
        return rows.setType(scales.type().with_sizes([None] * rank + [width]))


class PackedLinear(nn.Module):
    """A linear layer with packed weights (outputs, groups, group size / 2) and their scales (outputs, groups)."""

    def __init__(self, source: FakeInt4Linear) -> None:
        super().__init__()
        integers, scales = group_integers(source.weight, source.group_size)
        self.in_features = source.in_features
        self.register_buffer("weight", pack(integers))
        self.register_buffer("weight_scale", scales.squeeze(-1))
        self.register_buffer("bias", None if source.bias is None else source.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer; (..., inputs) -> (..., outputs)."""
        product = _PackedProduct.apply(x, self.weight, self.weight_scale, x.dim(), self.in_features)
        return product if self.bias is None else product + self.bias


class PackedEmbedding(nn.Module):
    """A table with packed rows (rows, width / 2) and their scales (rows, groups, 1); only what is read is scaled.

    Where groups don't fill a row, it is stored in smaller ones that do, some of which have the same scale.
    """

    def __init__(self, source: FakeQuantEmbedding, group_size: int) -> None:
        super().__init__()
        integers, scales = group_integers(source.weight, group_size)
        width = source.embedding_dim
        size = gcd(group_size, width)
        self.register_buffer("weight", pack(integers.flatten(-2)[:, :width]))
        self.register_buffer("weight_scale", scales.repeat_interleave(group_size // size, dim=1)[:, : width // size])

    def forward(self, ids: Tensor) -> Tensor:
        """Read rows; (...) -> (..., width), float32."""
        return _PackedRows.apply(ids, self.weight, self.weight_scale, ids.dim())
