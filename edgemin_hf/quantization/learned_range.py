"""Learning the step size of a layer's input: the ends of its range, by gradient descent.

The gradient is LSQ's (Esser et al. 2020, arXiv 1902.08153), with a learned offset as in LSQ+ (Bhalgat et al. 2020,
arXiv 2004.09576): the rounding is taken for the identity, all else is differentiated as it stands. By the ends of the
range, that is 1 for the upper end where a value lies above it, 1 for the lower end where it lies below, and for a value
x inside +-(round(x / s) - x / s) / 255.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edgemin_hf.quantization.native import FakeQuantLinear

_LEAST = 0.01
"""Least factor of a range's end: a range must not turn inside out."""


@contextmanager
def learned_ranges(parts: Sequence[nn.Module]) -> Iterator[list[nn.Parameter]]:
    """Makes the input ranges of fake-quantised linear layers learnable for a while.

    Args:
        parts: The modules whose linear layers learn; an uncalibrated one stays as it is.

    Yields:
        For each layer a parameter (2,): factors of the lower and upper end of its calibrated range. The layers'
        buffers hold the ranges of the last step when they are done.
    """
    linears = {id(m): m for part in parts for m in part.modules() if isinstance(m, FakeQuantLinear)}
    learning = [_LearnedRange(linear) for linear in linears.values() if linear.input_high > linear.input_low]
    handles = [one.linear.register_forward_pre_hook(one.quantize) for one in learning]
    try:
        yield [one.factors for one in learning]
    finally:
        for handle in handles:
            handle.remove()
        for one in learning:
            one.store()


class _LearnedRange:
    """Rounds a layer's input before the layer does, whose own rounding to the same grid then changes nothing."""

    def __init__(self, linear: FakeQuantLinear) -> None:
        self.linear = linear
        self.first = torch.stack([linear.input_low, linear.input_high]).clone()
        self.factors = nn.Parameter(torch.ones_like(self.first))

    def quantize(self, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.store()
        low, high = self.first * self.factors.clamp(min=_LEAST)
        return (quantize_input(args[0].float(), low, high).to(args[0].dtype), *args[1:])

    @torch.no_grad()
    def store(self) -> None:
        low, high = self.first * self.factors.clamp(min=_LEAST)
        self.linear.input_low.copy_(low)
        self.linear.input_high.copy_(high)


def quantize_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Rounds a tensor to the uint8 grid of a range, with gradients for its ends.

    Args:
        x: The tensor, float32.
        low: Lower end of the range, at most 0: ().
        high: Upper end, at least 0: ().

    Returns:
        The values on the grid that `native.input_grid` describes, of x's shape.
    """
    scale = (high - low) / 255
    zero = _rounded(-low / scale).clamp(0, 255)
    return (torch.clamp(_rounded(x / scale) + zero, 0, 255) - zero) * scale


def _rounded(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()
