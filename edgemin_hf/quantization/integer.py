"""The integer form of a model after quantisation-aware training: what is exported. That of INT4 is in `packed.py`.

Weights are stored as int8. In PyTorch these modules compute the same numbers as their fake-quantised sources; in ONNX
they become QuantizeLinear/DequantizeLinear pairs around each product, which ONNX Runtime runs on integer kernels.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from transformers import PreTrainedModel

from edgemin_hf.modeling.pruned_shape import unpruned, write_layer_numbers
from edgemin_hf.modeling.surgery import cut_like
from edgemin_hf.quantization.int4 import FakeInt4Linear
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    input_grid,
    integer_rows,
    plain_state_dict,
    row_scales,
)
from edgemin_hf.quantization.packed import PackedEmbedding, PackedLinear

if TYPE_CHECKING:
    from torch._C import Value
    from torch.onnx._internal.torchscript_exporter.jit_utils import GraphContext


class _QuantizedProduct(torch.autograd.Function):
    """x W + b on integer grids; `symbolic` writes it as standard ONNX (QDQ)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        weight: Tensor,
        weight_scale: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        bias: Tensor,
    ) -> Tensor:
        zero = zero_point.to(x.dtype)
        quantized = torch.clamp(torch.round(x / scale) + zero, 0, 255)
        return ((quantized - zero) * scale) @ (weight.to(x.dtype) * weight_scale) + bias

    @staticmethod
    def symbolic(
        g: GraphContext, x: Value, weight: Value, weight_scale: Value, scale: Value, zero_point: Value, bias: Value
    ) -> Value:
        zeros = g.op("Constant", value_t=torch.zeros(weight_scale.type().sizes(), dtype=torch.int8))
        x = g.op("DequantizeLinear", g.op("QuantizeLinear", x, scale, zero_point), scale, zero_point)
        weight = g.op("DequantizeLinear", weight, weight_scale, zeros, axis_i=1)
        # For two matrices Gemm, not MatMul: ONNX Runtime fuses a MatMul and its bias into a Gemm, takes that for a
        # float one, and dequantises the weight on every call.
        product = "Gemm" if x.type().dim() == 2 else "MatMul"
        return g.op("Add", g.op(product, x, weight), bias)


class IntegerLinear(nn.Module):
    """A linear layer with int8 weights (inputs, outputs), one scale an output, and a fixed uint8 grid for its input."""

    def __init__(self, source: FakeQuantLinear) -> None:
        super().__init__()
        scales = source.weight_scale
        if scales is None:
            scales = row_scales(source.weight, source.weight_integers)
        integers = integer_rows(source.weight, scales, source.weight_integers)
        scale, zero_point = input_grid(*(end.detach() for end in source.input_range()))
        bias = source.weight.new_zeros(source.out_features) if source.bias is None else source.bias.detach()
        self.register_buffer("weight", integers.to(torch.int8).T.contiguous())
        self.register_buffer("weight_scale", scales.squeeze(-1))
        self.register_buffer("input_scale", scale)
        self.register_buffer("input_zero_point", zero_point.to(torch.uint8))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the layer; (..., inputs) -> (..., outputs)."""
        return _QuantizedProduct.apply(
            x, self.weight, self.weight_scale, self.input_scale, self.input_zero_point, self.bias
        )


class IntegerEmbedding(nn.Module):
    """An int8 table with a scale a row. The rows are dequantised after they are read, not the table before."""

    def __init__(self, source: FakeQuantEmbedding) -> None:
        super().__init__()
        scales = row_scales(source.weight, source.weight_integers)
        self.register_buffer("weight", integer_rows(source.weight, scales, source.weight_integers).to(torch.int8))
        self.register_buffer("weight_scale", scales)

    def forward(self, ids: Tensor) -> Tensor:
        """Read rows; (...) -> (..., width), float32."""
        return self.weight[ids].to(self.weight_scale.dtype) * self.weight_scale[ids]


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a full-precision copy for export, with explicit attention: its graph is smaller than that of SDPA.

    Args:
        model: A plain model, or one prepared for quantisation-aware training.

    Returns:
        The copy, on the CPU, in evaluation mode.
    """
    # An encoder whose head was a masked-LM one has no pooler.
    without = {"add_pooling_layer": False} if getattr(model, "pooler", model) is None else {}
    config = unpruned(model.config)
    plain = type(model)._from_config(config, attn_implementation="eager", dtype=torch.float32, **without)
    cut_like(plain, model.config)
    write_layer_numbers(plain.config, None)  # it is prepared for nothing
    plain.load_state_dict(plain_state_dict(model))
    return plain.cpu().eval()


def quantized_weights(model: nn.Module) -> Literal["int8", "int4"] | None:
    """Return the precision of most of a model's quantised weights; None where it is not prepared for QAT.

    Those of linear layers count: tables only where no linear layer is quantised.
    """
    linears, tables = Counter[Literal["int8", "int4"]](), Counter[Literal["int8", "int4"]]()
    for module in model.modules():
        if isinstance(module, FakeQuantLinear | FakeInt4Linear):
            linears["int8" if isinstance(module, FakeQuantLinear) else "int4"] += module.weight.numel()
        elif isinstance(module, FakeQuantEmbedding):
            tables["int8" if module.group_size is None else "int4"] += module.weight.numel()
    counted = linears or tables
    return max(sorted(counted, reverse=True), key=counted.__getitem__, default=None)


def integer_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return the integer copy, for export, of a model after quantisation-aware training.

    Args:
        model: The trained model with its fake-quantised modules.

    Returns:
        The copy, on the CPU, in evaluation mode.
    """
    integer = plain_copy(model)
    modules: dict[str, nn.Module] = dict(model.named_modules())
    for name, source in modules.items():
        form = _integer_form(source)
        if form is not None:
            parent, _, child = name.rpartition(".")
            setattr(integer.get_submodule(parent), child, form.cpu())
    return integer


def _integer_form(source: nn.Module) -> nn.Module | None:
    """Return what a fake-quantised module becomes; None for any other."""
    if isinstance(source, FakeQuantLinear):
        return IntegerLinear(source)
    if isinstance(source, FakeInt4Linear):
        return PackedLinear(source)
    if isinstance(source, FakeQuantEmbedding):
        return IntegerEmbedding(source) if source.group_size is None else PackedEmbedding(source, source.group_size)
    return None
