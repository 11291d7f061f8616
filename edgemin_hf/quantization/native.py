"""Quantisation-aware training with plain modules: fake-quantised `Linear` and `Embedding`. INT4 is in `int4.py`.

Grids of INT8 (Jacob et al. 2018, arXiv 1712.05877): weights symmetric, one scale a row, -64..64 or -127..127;
activations affine, one scale a tensor, 0..255. Gradients pass straight through the rounding (Bengio et al. 2013, arXiv
1308.3432).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import hooked
from edgemin_hf.quantization.config import Precision, QuantizationConfig
from edgemin_hf.quantization.int4 import FakeInt4Linear, fake_quantize_groups
from edgemin_hf.quantization.learned_range import quantize_input, scaled_range
from edgemin_hf.quantization.precision import keep_layer_numbers, plain_linear, plain_table, precisions
from edgemin_hf.utils.processes import joined, several_processes

_RANGE_NAMES = ("input_low", "input_high")
_ADDED_NAMES = (*_RANGE_NAMES, "range_factors", "weight_scale")
"""Buffers and parameters that a plain model does not have."""
ALL_BITS, SEVEN_BITS = (-128, 127), (-64, 64)
"""Integers of INT8 weights, and with `reduce_range`: 2 x 255 x 64 = 32640 does not saturate int16."""


class FakeQuantLinear(nn.Linear):
    """A linear layer that computes on the values which the integer kernel will see.

    Its parameters are those of a plain `nn.Linear`, under the same names. The range of its input is kept in two
    buffers; it always holds 0, which padding and ReLU-like outputs need exactly.

    Attributes:
        observing: Whether training changes the range; evaluation never does.
        range_factors: While the range is learned, a parameter (2,), float32: what the two buffers are multiplied by.
            Else None.
        weight_scale: Fixed scales of the weight's rows (out_features, 1), to which weights are then clipped; None takes
            them from the rows as they are.
        weight_integers: The least and the largest integer of a weight.

    Example:
        >>> import torch
        >>> from edgemin_hf.quantization import FakeQuantLinear
        >>> linear = FakeQuantLinear(torch.nn.Linear(32, 8), momentum=0.01)
        >>> linear.widen_range(torch.tensor([-1.0, 3.0]))
        >>> linear.input_low.item(), linear.input_high.item(), linear(torch.ones(2, 32)).shape
        (-1.0, 3.0, torch.Size([2, 8]))
    """

    input_low: Tensor
    input_high: Tensor
    range_factors: nn.Parameter | None
    weight_scale: Tensor | None

    def __init__(self, linear: nn.Linear, momentum: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.momentum = momentum
        self.weight_integers = ALL_BITS
        self.observing = True
        for name in _RANGE_NAMES:
            self.register_buffer(name, torch.zeros((), device=linear.weight.device))
        self.register_parameter("range_factors", None)
        self.register_buffer("weight_scale", None)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, *args: object, **kwargs: object
    ) -> None:
        # Only some checkpoints hold fixed scales: what one holds decides.
        scale = state_dict.get(f"{prefix}weight_scale")
        self.weight_scale = None if scale is None else torch.empty_like(scale, device=self.weight.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Compute the layer on the grids of its input and of its weight."""
        if self.training and self.observing and self.range_factors is None:
            self._update_range(input.detach())
        weight = fake_quantize_rows(self.weight, self.weight_scale, self.weight_integers)
        return F.linear(self.quantized_input(input).to(self.weight.dtype), weight, self.bias)

    def quantized_input(self, input: Tensor) -> Tensor:
        """Return the input on its grid, float32: what the weight is multiplied with."""
        low, high = self.input_range()
        # In float32: bf16 has too few digits to round to a grid of 256 values.
        if low.requires_grad:
            return quantize_input(input.float(), low, high)
        return torch.fake_quantize_per_tensor_affine(input.float(), *input_grid(low, high), 0, 255)

    def _update_range(self, input: Tensor) -> None:
        low, high = (bound.float() for bound in torch.aminmax(input))
        self.input_low.lerp_(low.clamp(max=0), self.momentum)
        self.input_high.lerp_(high.clamp(min=0), self.momentum)

    def input_range(self) -> tuple[Tensor, Tensor]:
        """Return the ends of the input's range, () each, with gradients for its factors where it is learned."""
        if self.range_factors is None:
            return self.input_low, self.input_high
        return scaled_range(self.input_low, self.input_high, self.range_factors)

    def widen_range(self, input: Tensor) -> None:
        """Widen the range until it holds every value of `input`: calibration."""
        low, high = (bound.float() for bound in torch.aminmax(input))
        self.input_low.copy_(torch.minimum(self.input_low, low))
        self.input_high.copy_(torch.maximum(self.input_high, high))


class FakeQuantEmbedding(nn.Embedding):
    """An embedding whose rows are on the grid that the integer table will hold; only rows that are read are rounded.

    Attributes:
        group_size: Number of INT4 values in a row that share a scale; None for INT8, with a scale a row.
        weight_integers: The least and the largest integer of INT8; those of a layer whose weight the table is.

    Example:
        >>> import torch
        >>> from edgemin_hf.quantization import FakeQuantEmbedding
        >>> rows = FakeQuantEmbedding(torch.nn.Embedding(50, 1024))(torch.tensor([7]))
        >>> rows.shape, len(rows.unique()) <= 255  # int8, symmetric
        (torch.Size([1, 1024]), True)
    """

    def __init__(self, embedding: nn.Embedding, group_size: int | None = None) -> None:
        nn.Module.__init__(self)
        self.group_size = group_size
        self.weight_integers = ALL_BITS
        self.num_embeddings, self.embedding_dim = embedding.num_embeddings, embedding.embedding_dim
        self.padding_idx, self.max_norm, self.norm_type = embedding.padding_idx, None, embedding.norm_type
        self.scale_grad_by_freq, self.sparse = embedding.scale_grad_by_freq, embedding.sparse
        self.weight = embedding.weight

    def forward(self, input: Tensor) -> Tensor:
        """Read rows and round them to their grids."""
        rows = super().forward(input)
        if self.group_size is not None:
            return fake_quantize_groups(rows, self.group_size)
        return fake_quantize_rows(rows, integers=self.weight_integers)


def linear_integers(reduce_range: bool) -> tuple[int, int]:
    """Return the least and the largest integer of INT8 weights, of 7 bits or of 8."""
    return SEVEN_BITS if reduce_range else ALL_BITS


def input_grid(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale (float32) and the zero point (int32) of a uint8 grid over a range that holds 0."""
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    return scale, torch.round(-low / scale).clamp(0, 255).to(torch.int32)


def row_scales(weight: Tensor, integers: tuple[int, int] = ALL_BITS) -> Tensor:
    """Return the symmetric scale (..., 1) of each row (..., width): its largest value becomes the last integer."""
    least = torch.finfo(torch.float32).tiny
    return (weight.detach().abs().amax(dim=-1, keepdim=True) / integers[1]).clamp(min=least)


def integer_rows(weight: Tensor, scales: Tensor, integers: tuple[int, int] = ALL_BITS) -> Tensor:
    """Return the integers, as floats, of rows (..., width) on the grids of their scales (..., 1)."""
    return torch.round(weight.detach() / scales).clamp(*integers)


def fake_quantize_rows(weight: Tensor, scales: Tensor | None = None, integers: tuple[int, int] = ALL_BITS) -> Tensor:
    """Round each row to its int8 grid; the gradient passes straight through where nothing is clipped.

    Args:
        weight: (..., width).
        scales: Scales (..., 1) that a row is clipped to; None takes those that clip nothing.
        integers: The least and the largest integer of the grid.

    Returns:
        The values on the grid.
    """
    if scales is None:
        scales = row_scales(weight, integers)
    else:
        weight = torch.clamp(weight, integers[0] * scales, integers[1] * scales)
    return weight + (integer_rows(weight, scales, integers) * scales - weight.detach())


def prepare_qat(model: PreTrainedModel, config: QuantizationConfig) -> None:
    """Swap a model's linear layers and embedding tables, in place, for fake-quantised ones with the same parameters.

    Args:
        model: The model; its parameters stay the same objects. What is so prepared already stays as it is.
        config: What to quantise.

    Raises:
        ValueError: If `overrides` do not fit the model, a table can't be stored in INT4, or precisions are yet to be
            chosen for a `target_size_mb`.
    """
    if config.target_size_mb is not None:
        raise ValueError(f"target_size_mb: {config.target_size_mb:g}; allowed: in a recipe; here overrides")
    wanted = precisions(model, config)
    for parent, name, linear in list(Encoder(model).linears()):
        setattr(parent, name, _linear_in(wanted[linear], linear, config).train(linear.training))
    prepare_embeddings(model, config)


def prepare_embeddings(model: PreTrainedModel, config: QuantizationConfig) -> None:
    """Swap a model's tables of words and positions, in place, for fake-quantised ones with the same parameters.

    Args:
        model: The model.
        config: Their precision.

    Raises:
        ValueError: If `overrides` do not fit the model, or a table can't be stored in INT4.
    """
    wanted = precisions(model, config)
    # Of decoders: a table that one is tied to is stored once, on one grid. Those on scales of INC's share none.
    decoders = fake_quantized_linears(model) if config.provider == "native" else []
    integers = {id(linear.weight): linear.weight_integers for linear in decoders}
    for parent, name, table in list(Encoder(model).embeddings()):
        if table in wanted:
            made = _table_in(wanted[table], table, config).train(table.training)
            if isinstance(made, FakeQuantEmbedding):
                made.weight_integers = integers.get(id(made.weight), ALL_BITS)
            setattr(parent, name, made)
    if config.overrides:
        keep_layer_numbers(model.config)


def _linear_in(precision: Precision, linear: nn.Linear, config: QuantizationConfig) -> nn.Linear:
    """Return a linear layer of a precision with the parameters of another."""
    if precision == "int4":
        return FakeInt4Linear(linear, config.group_size)
    if precision == "int8":
        if not isinstance(linear, FakeQuantLinear):  # else it keeps its range
            linear = FakeQuantLinear(linear, config.range_momentum)
        linear.weight_integers = linear_integers(config.reduce_range)
        return linear
    return plain_linear(linear) if isinstance(linear, FakeQuantLinear | FakeInt4Linear) else linear


def _table_in(precision: Precision, table: nn.Embedding, config: QuantizationConfig) -> nn.Embedding:
    """Return a table of a precision with the parameters of another."""
    if precision != "fp32":
        return FakeQuantEmbedding(table, config.group_size if precision == "int4" else None)
    return plain_table(table) if isinstance(table, FakeQuantEmbedding) else table


def fake_quantized_linears(model: nn.Module) -> list[FakeQuantLinear]:
    """Return the linear layers of a model that are prepared for INT8: those whose input has a range."""
    return [module for module in model.modules() if isinstance(module, FakeQuantLinear)]


@torch.no_grad()
def calibrate(
    model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], run: Callable[[Mapping[str, Tensor]], object]
) -> None:
    """Set the first input ranges of a prepared model: the least that hold everything these batches bring.

    Args:
        model: A model after `prepare_qat`.
        batches: Batches of its inputs.
        run: Runs the model on a batch.
    """

    def widen(module: FakeQuantLinear, args: tuple[Tensor, ...]) -> None:
        module.widen_range(args[0])

    was_training = model.training
    model.eval()
    try:
        with hooked(before=[(module, widen) for module in fake_quantized_linears(model)]):
            for batch in batches:
                run(batch)
    finally:
        model.train(was_training)


@torch.no_grad()
def widen_everywhere(model: nn.Module) -> None:
    """Let the input ranges of a model hold what those of all processes do."""
    linears = fake_quantized_linears(model)
    if linears and several_processes():
        own = torch.stack([torch.stack([linear.input_low, linear.input_high]) for linear in linears])
        for linear, ranges in zip(linears, joined(own[None]).unbind(1), strict=True):
            linear.widen_range(ranges)


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's weights without input ranges and scales: the state of the plain model that it was made from."""
    return {name: value for name, value in model.state_dict().items() if name.rpartition(".")[2] not in _ADDED_NAMES}
