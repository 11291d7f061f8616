"""The step size of a layer's input as something that can be learned: gradients for the ends of its range.

The gradient is LSQ's (Esser et al. 2020, arXiv 1902.08153), with a learned offset as in LSQ+ (Bhalgat et al. 2020,
arXiv 2004.09576): the rounding is taken for the identity, all else is differentiated as it stands. By the ends of the
range, that is 1 for the upper end where a value lies above it, 1 for the lower end where it lies below, and for a value
x inside +-(round(x / s) - x / s) / 255.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 0.01
"""Least factor of a range's end: a range must not turn inside out."""


def scaled_range(low: Tensor, high: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Return a range (), () whose lower and upper end are multiplied by factors (2,), none of them below 0.01."""
    low_factor, high_factor = factors.clamp(min=_LEAST)
    return low * low_factor, high * high_factor


def quantize_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Round a tensor to the uint8 grid of a range, with gradients for its ends.

    Args:
        x: The tensor, float32.
        low: Lower end of the range, at most 0: ().
        high: Upper end, at least 0: ().

    Returns:
        The values on the grid that `native.input_grid` describes, of x's shape.
    """
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero = _rounded(-low / scale).clamp(0, 255)
    return (torch.clamp(_rounded(x / scale) + zero, 0, 255) - zero) * scale


def _rounded(x: Tensor) -> Tensor:
    return x + (torch.round(x) - x).detach()
