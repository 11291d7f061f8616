import numpy as np
import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from edgemin_hf import QuantizationConfig
from edgemin_hf.quantization.integer import integer_copy, plain_copy
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    calibrate,
    fake_quantized_linears,
    plain_state_dict,
    prepare_qat,
)
from edgemin_hf.quantization.range_training import RangeFreezer
from tests.helpers.models import FAMILIES, batch, tiny


def quantized(family="bert", **settings):
    model = tiny(family)
    prepare_qat(model, QuantizationConfig(**settings))
    calibrate(model, [batch(seed=seed) for seed in range(4)], lambda inputs: model(**inputs))
    return model


def test_linear_computes_on_the_grids_of_numpy():
    torch.manual_seed(0)
    linear = nn.Linear(16, 8)
    layer = FakeQuantLinear(linear, momentum=0.1).eval()
    x = torch.randn(5, 16)
    layer.widen_range(x)
    weight, bias, inputs = (tensor.detach().numpy().astype(np.float64) for tensor in (linear.weight, linear.bias, x))
    scale = (inputs.max() - inputs.min()) / 255
    zero = np.round(-inputs.min() / scale)
    grid = (np.clip(np.round(inputs / scale) + zero, 0, 255) - zero) * scale
    row_scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    expected = grid @ (np.round(weight / row_scale) * row_scale).T + bias
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, atol=1e-5)
    assert np.abs(expected - linear(x).detach().numpy()).max() > 1e-4


def test_embedding_rounds_the_rows_that_are_read():
    table = nn.Embedding(10, 8, padding_idx=0)
    layer = FakeQuantEmbedding(table)
    rows = table.weight[torch.tensor([3, 0])].detach().numpy()
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / 127
    np.testing.assert_allclose(layer(torch.tensor([3, 0])).detach().numpy(), np.round(rows / scale) * scale, atol=1e-7)
    layer(torch.tensor([3, 0])).sum().backward()
    assert table.weight.grad[3].eq(1).all()
    assert table.weight.grad[0].eq(0).all(), "padding is not trained"


def test_gradients_pass_straight_through_inside_the_range():
    layer = FakeQuantLinear(nn.Linear(4, 2), momentum=0.1).eval()
    layer.widen_range(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([[0.3, -0.5, 5.0, -7.0]], requires_grad=True)
    layer(x).sum().backward()
    weights = layer.weight.detach().sum(0)
    torch.testing.assert_close(x.grad[0, :2], weights[:2], rtol=0.02, atol=0.005)
    assert x.grad[0, 2:].eq(0).all()
    assert layer.weight.grad.abs().min() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_stay_and_the_state_loads_back_into_the_plain_model(family):
    plain = tiny(family)
    ids = {id(parameter) for parameter in plain.parameters()}
    prepare_qat(plain, QuantizationConfig())
    assert ids == {id(parameter) for parameter in plain.parameters()}
    model = quantized(family)
    again = tiny(family, seed=9)
    again.load_state_dict(plain_state_dict(model))
    torch.testing.assert_close(again(**batch()).logits, tiny(family)(**batch()).logits)


def test_quantized_is_near_plain_and_not_equal():
    logits, plain = quantized()(**batch()).logits, tiny()(**batch()).logits
    difference = (logits - plain).abs().mean() / plain.std()
    assert 1e-4 < difference < 0.1


def test_embeddings_stay_in_full_precision_where_asked():
    model = quantized(embeddings="fp32")
    assert not any(isinstance(module, FakeQuantEmbedding) for module in model.modules())
    assert len(fake_quantized_linears(model)) == 3 * 6 + 2


def test_ranges_move_in_training_only_and_not_when_frozen():
    model = quantized()
    layer = fake_quantized_linears(model)[0]
    before = layer.input_high.clone()
    model(**batch(seed=11))
    assert torch.equal(layer.input_high, before), "evaluation does not move a range"
    model.train()
    model(**batch(seed=11))
    assert not torch.equal(layer.input_high, before)
    before = layer.input_high.clone()
    freezer = RangeFreezer(QuantizationConfig(frozen_share=0.5))
    state = TrainerState(max_steps=10)
    for step, moves in ((4, True), (5, False), (9, False), (0, True)):
        state.global_step = step
        freezer.on_step_begin(TrainingArguments("unused", report_to=[]), state, TrainerControl(), model=model)
        before = layer.input_high.clone()
        model(**batch(seed=12 + step))
        assert torch.equal(layer.input_high, before) != moves


@pytest.mark.parametrize("family", FAMILIES)
def test_integer_copy_computes_the_same_and_stores_int8(family):
    model = quantized(family)
    integer = integer_copy(model)
    with torch.no_grad():
        torch.testing.assert_close(integer(**batch()).logits, model(**batch()).logits, rtol=1e-3, atol=1e-3)
    stored = [name for name, buffer in integer.named_buffers() if buffer.dtype == torch.int8]
    assert len(stored) == len(fake_quantized_linears(model)) + sum(
        isinstance(module, FakeQuantEmbedding) for module in model.modules()
    )
    # DeBERTa's table of distances, which no embedding layer reads, stays as it is.
    large = [name for name, parameter in integer.named_parameters() if parameter.numel() > 1000]
    assert not [name for name in large if "rel_embeddings" not in name], "no matrix is left in float"


def test_plain_copy_is_full_precision():
    torch.testing.assert_close(plain_copy(quantized())(**batch()).logits, tiny()(**batch()).logits)


@pytest.mark.parametrize(
    "wrong", [{"weights": "int3"}, {"embeddings": "int2"}, {"frozen_share": 2}, {"calibration_examples": 0}]
)
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QuantizationConfig(**wrong)
