import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM

from edgemin_hf import QuantizationConfig
from edgemin_hf.quantization.integer import integer_copy
from edgemin_hf.quantization.learned_range import quantize_input
from edgemin_hf.quantization.native import FakeQuantLinear, calibrate, fake_quantized_linears, input_grid, prepare_qat
from edgemin_hf.quantization.range_training import learned_ranges
from edgemin_hf.quantization.reconstruction import ReconstructionConfig, reconstruct
from tests.helpers.models import batch, spread, tiny

DATA = [batch((7, 4, 9, 5), seed=seed) for seed in range(6)]
QUICK = {"modules": 3, "steps": 24, "batch_size": 8, "learning_rate": 3e-4, "range_learning_rate": 3e-3}


def pair(family="bert", **options):
    """A teacher and its calibrated INT8 model."""
    teacher = tiny(family, **options)
    model = copy.deepcopy(teacher)
    prepare_qat(model, QuantizationConfig())
    calibrate(model, DATA, lambda inputs: model(**inputs))
    return model, teacher


def logits_error(model, teacher, data):
    with torch.no_grad():
        return sum((model(**one).logits - teacher(**one).logits).square().mean().item() for one in data)


def test_input_on_its_grid_with_the_gradients_of_numpy():
    x = torch.tensor([-3.0, -0.51, 0.0, 0.3333, 1.234, 5.0])
    low, high = (torch.tensor(value, requires_grad=True) for value in (-1.0, 2.0))
    out = quantize_input(x, low, high)
    weights = torch.arange(1.0, 7.0)
    (out * weights).sum().backward()
    values, scale = x.numpy().astype(np.float64), 3 / 255
    zero = np.round(1 / scale)
    grid = np.clip(np.round(values / scale) + zero, 0, 255)
    np.testing.assert_allclose(out.detach().numpy(), (grid - zero) * scale, atol=1e-6)
    inside = (grid > 0) & (grid < 255)
    slope = np.where(inside, (np.round(values / scale) - values / scale) / 255, 0)
    upper = np.where(grid == 255, (255 - zero) / 255 + 1 / 3, slope)  # d(255 - z)s: z = -low / s moves with s too
    expected_high = (weights.numpy() * np.where(grid == 255, 1.0, slope)).sum()
    expected_low = (weights.numpy() * np.where(grid == 0, 1.0, -slope)).sum()
    np.testing.assert_allclose(high.grad.item(), expected_high, rtol=0.01)
    np.testing.assert_allclose(low.grad.item(), expected_low, rtol=0.01)
    np.testing.assert_allclose(upper[-1], 1.0, atol=0.01)
    scale, zero_point = input_grid(low.detach(), high.detach())
    native = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)
    torch.testing.assert_close(out.detach(), native)


def test_a_learned_range_computes_what_the_layer_computes_and_stays():
    torch.manual_seed(0)
    layer = FakeQuantLinear(nn.Linear(16, 8), momentum=0.1).eval()
    x = torch.randn(50, 16)
    layer.widen_range(0.8 * x)
    expected = layer(x)
    with learned_ranges([nn.Sequential(layer)]) as (factors,):
        torch.testing.assert_close(layer(x), expected)
        layer(x).square().sum().backward()
        assert factors.grad.abs().min() > 0
        with torch.no_grad():
            factors.copy_(torch.tensor([0.5, 2.0]))
    low, high = 0.5 * 0.8 * x.min(), 2 * 0.8 * x.max()
    torch.testing.assert_close(torch.stack([layer.input_low, layer.input_high]), torch.stack([low, high]))
    assert layer.range_factors is None
    assert list(layer.state_dict()) == ["weight", "bias", "input_low", "input_high"]
    empty = FakeQuantLinear(nn.Linear(4, 2), momentum=0.1)
    with learned_ranges([empty]) as (factors,):
        empty(x[:, :4]).square().sum().backward()
        assert factors.grad.eq(0).all(), "without calibration there is nothing to learn"


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2", "modernbert", "distilbert"])
def test_the_error_of_each_module_falls(family):
    model, teacher = pair(family)
    state = copy.deepcopy(teacher.state_dict())
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**QUICK))
    assert [outcome.name for outcome in found] == ["layer 0", "layer 1", "layer 2", "head"]
    assert all(outcome.after <= outcome.before for outcome in found)
    assert all(outcome.after < 0.95 * outcome.before for outcome in found[1:3])
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():  # what ships is the integer form of what was trained
        torch.testing.assert_close(integer_copy(model)(**DATA[0]).logits, model(**DATA[0]).logits, rtol=2e-3, atol=2e-3)


def test_texts_that_were_not_seen_gain_too():
    model, teacher = pair()
    unseen = [batch((8, 5, 6), seed=seed) for seed in range(100, 108)]
    before = logits_error(model, teacher, unseen)
    data = [batch((7, 4, 9, 5), seed=seed) for seed in range(32)]
    reconstruct(model, teacher, data, ReconstructionConfig(**{**QUICK, "modules": 1, "steps": 40}))
    assert logits_error(model, teacher, unseen) < before


def test_shared_layers_are_one_module():
    model, teacher = pair("albert")
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "learning_rate": 3e-5}))
    assert [outcome.name for outcome in found] == ["layers 0-2", "head"]
    assert found[0].after < found[0].before


def test_a_model_in_full_precision_stays_as_it_is():
    model, teacher = tiny(), tiny()
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 3}))
    assert [(outcome.before, outcome.after) for outcome in found] == [(0.0, 0.0)] * 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), teacher.parameters(), strict=True))


def reconstructed(data, **changes):
    model, teacher = pair()
    reconstruct(model, teacher, data, ReconstructionConfig(**{**QUICK, "steps": 5, **changes}))
    return model.state_dict()


def test_the_seed_decides():
    first, again, other = reconstructed(DATA), reconstructed(DATA), reconstructed(DATA, seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_padding_and_batches_change_nothing():
    wide = [
        {
            "input_ids": spread(one["input_ids"], range(one["input_ids"].shape[1]), 14),
            "attention_mask": nn.functional.pad(one["attention_mask"], (0, 14 - one["attention_mask"].shape[1])),
            "labels": torch.zeros(len(one["input_ids"]), dtype=torch.long),
        }
        for one in DATA
    ]
    joined = [{name: torch.cat([one[name] for one in wide]) for name in wide[0]}]
    first, second = reconstructed(DATA), reconstructed(joined)
    assert all(torch.equal(first[name], second[name]) for name in first)
    left = [batch((7, 4, 9, 5), seed=seed, pad_to=12, side="left") for seed in range(6)]
    third = reconstructed(left)
    assert all(torch.equal(first[name], third[name]) for name in first)


def test_only_as_many_examples_as_asked_for():
    first = reconstructed(DATA[:2], examples=8)
    second = reconstructed(DATA, examples=8)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_teacher_forcing_changes_the_way_and_still_gains():
    model, teacher = pair()
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**QUICK, teacher_forcing=0.5))
    assert all(outcome.after < outcome.before for outcome in found[1:3])
    plain, forced = reconstructed(DATA), reconstructed(DATA, teacher_forcing=1.0)
    first = [name for name in plain if ".layer.0." in name or "embeddings" in name]
    assert all(torch.equal(plain[name], forced[name]) for name in first), "it has no input to force"
    assert any(not torch.equal(plain[name], forced[name]) for name in plain)


def test_rates_of_zero_change_nothing():
    model, _ = pair()
    state = reconstructed(DATA, learning_rate=0.0, range_learning_rate=0.0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_ranges_alone_and_weights_alone():
    first = pair()[0].state_dict()
    ranges, weights = reconstructed(DATA, learning_rate=0.0), reconstructed(DATA, range_learning_rate=0.0)
    is_range = {name: name.endswith(("input_low", "input_high")) for name in first}
    assert all(torch.equal(first[name], ranges[name]) for name in first if not is_range[name])
    assert any(not torch.equal(first[name], ranges[name]) for name in first if is_range[name])
    assert all(torch.equal(first[name], weights[name]) for name in first if is_range[name])
    assert any(not torch.equal(first[name], weights[name]) for name in first if not is_range[name])


def test_models_without_a_classifier():
    model, teacher = pair(head=AutoModel)
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 3}))
    assert [outcome.name for outcome in found] == ["layer 0", "layer 1", "layer 2"]
    model, teacher = pair(head=AutoModelForMaskedLM)
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 3}))
    assert found[-1].name == "head"
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_modules_of_several_layers():
    model, teacher = pair()
    found = reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 3, "modules": 2}))
    assert [outcome.name for outcome in found] == ["layer 0", "layers 1-2", "head"]
    model, teacher = pair()
    assert len(reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 3, "modules": 9}))) == 4


def test_training_mode_and_frozen_parameters_come_back():
    model, teacher = pair()
    model.train()
    model.classifier.weight.requires_grad_(False)
    reconstruct(model, teacher, DATA, ReconstructionConfig(**{**QUICK, "steps": 2}))
    assert model.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["classifier.weight"]
    assert all(layer.observing for layer in fake_quantized_linears(model))


def test_impossible_settings():
    for wrong in ({"modules": 0}, {"steps": 0}, {"learning_rate": -1.0}, {"teacher_forcing": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ReconstructionConfig(**wrong)
    model, _ = pair()
    with pytest.raises(ValueError, match="teacher: DistilBertForSequenceClassification"):
        reconstruct(model, tiny("distilbert"), DATA, ReconstructionConfig())
    with pytest.raises(ValueError, match="teacher: BertForSequenceClassification of 2 x 32"):
        reconstruct(model, tiny(num_hidden_layers=2), DATA, ReconstructionConfig())
    with pytest.raises(ValueError, match="batches: no examples"):
        reconstruct(model, tiny(), [], ReconstructionConfig())
