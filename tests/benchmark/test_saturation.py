"""The emulation of kernels without VNNI, beside their arithmetic written out pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemin_hf.quantization.integer import IntegerLinear
from edgemin_hf.quantization.native import SEVEN_BITS, FakeQuantLinear

TOKENS, OUTPUTS = 6, 5


def layer_and_input(width, integers=None):
    torch.manual_seed(0)
    source = FakeQuantLinear(nn.Linear(width, OUTPUTS), momentum=0.1)
    source.weight_integers = integers or source.weight_integers
    with torch.no_grad():  # most weights near the ends of the grid, so that many pairs saturate
        source.weight.copy_(torch.randn(OUTPUTS, width).sign() * torch.rand(OUTPUTS, width) ** 0.2)
    x = torch.rand(2, TOKENS // 2, width) * 2 - 0.3
    source.widen_range(x)
    return IntegerLinear(source), x


def by_hand(layer, x):
    """The layer with every pair added in int16, which saturates; and how many did."""
    zero = int(layer.input_zero_point)
    inputs = np.round(x.numpy() / layer.input_scale.numpy()).reshape(TOKENS, -1) + zero
    inputs, weight = np.clip(inputs, 0, 255).astype(int), layer.weight.numpy().astype(int)
    total, saturated = np.zeros((TOKENS, OUTPUTS), dtype=int), 0
    for token in range(TOKENS):
        for output in range(OUTPUTS):
            products = list(inputs[token] * weight[:, output])
            for start in range(0, len(products), 2):
                pair = sum(products[start : start + 2])
                total[token, output] += min(max(pair, -32768), 32767)
                saturated += not -32768 <= pair <= 32767
    values = (total - zero * weight.sum(0)) * float(layer.input_scale) * layer.weight_scale.numpy()
    return values + layer.bias.numpy(), saturated


@pytest.mark.parametrize(("width", "integers"), [(64, None), (65, None), (64, SEVEN_BITS)])
def test_it_adds_pairs_as_the_kernels_do(monkeypatch, width, integers):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from saturation import saturating

    layer, x = layer_and_input(width, integers)
    expected, saturated = by_hand(layer, x)
    with saturating(nn.Sequential(layer)) as pairs:
        found = layer(x)
    np.testing.assert_allclose(found.reshape(TOKENS, OUTPUTS).numpy(), expected, atol=1e-4)
    assert (pairs[0].saturated, pairs[0].pairs) == (saturated, TOKENS * OUTPUTS * ((width + 1) // 2))
    assert (saturated == 0) == (integers is SEVEN_BITS)
    exact = np.abs(layer(x).reshape(TOKENS, OUTPUTS).numpy() - expected).max()
    assert (exact < 1e-4) == (integers is SEVEN_BITS), "without the emulation nothing saturates"
