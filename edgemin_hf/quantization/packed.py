"""The packed form of INT4 weights: what is exported, as the contributed operators of ONNX Runtime.

Two integers share a byte, the first in its lower half, and each is stored with 8 added: without a zero point the
operators take 8 for it. In PyTorch these modules compute the same numbers as their fake-quantised sources.
"""

from __future__ import annotations

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
    """Rows of a table in packed groups; `symbolic` writes them as GatherBlockQuantized."""

    @staticmethod
    def forward(ctx: FunctionCtx, ids: Tensor, weight: Tensor, scales: Tensor, rank: int, group_size: int) -> Tensor:
        rows = unpack(weight[ids])
        return rows * scales[ids].repeat_interleave(group_size, dim=-1)[..., : rows.shape[-1]]

    @staticmethod
    def symbolic(g: GraphContext, ids: Value, weight: Value, scales: Value, rank: int, group_size: int) -> Value:
        rows = g.op(
            "com.microsoft::GatherBlockQuantized",
            weight, ids, scales, bits_i=4, block_size_i=group_size, gather_axis_i=0, quantize_axis_i=1,
        )  # fmt: skip
        sizes = [None] * rank + [2 * weight.type().sizes()[-1]]
        return rows.setType(scales.type().with_sizes(sizes))


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
    """A table with packed rows (rows, width / 2) and their scales (rows, groups); only what is read is scaled."""

    def __init__(self, source: FakeQuantEmbedding, group_size: int) -> None:
        super().__init__()
        integers, scales = group_integers(source.weight, group_size)
        self.group_size = group_size
        self.register_buffer("weight", pack(integers.flatten(-2)[:, : source.embedding_dim]))
        self.register_buffer("weight_scale", scales.squeeze(-1))

    def forward(self, ids: Tensor) -> Tensor:
        """Read rows; (...) -> (..., width), float32."""
        return _PackedRows.apply(ids, self.weight, self.weight_scale, ids.dim(), self.group_size)
