import copy
import logging
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao.nn.quantized import Linear as QuantizedLinear

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.neural_compressor.guest import importing_inc
from edgemin_hf.neural_compressor.ptq import quantize_by_inc
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    fake_quantize_rows,
    fake_quantized_linears,
    input_grid,
    integer_rows,
    prepare_qat,
)
from edgemin_hf.runtime.sessions import integer_products_saturate
from tests.helpers.models import FAMILIES, batch, tiny

pytest.importorskip("neural_compressor")
pytestmark = pytest.mark.long
DATA = [batch((8, 8, 8), seed=seed) for seed in range(4)]
CONFIG = QuantizationConfig(provider="inc", reduce_range=False)


def assert_same_but_ties(ours, theirs, exact):
    """Both are a grid's integers; they differ where rounding in float32 decides which of two is the nearest.

    The scale max|w| / 127.5 makes such a tie of each row's largest value: PyTorch's kernel multiplies it by the float32
    reciprocal of the scale, we divide; either comes 1e-5 off -127.5, and to -127 or -128.
    """
    differ = ours != theirs
    assert (ours - theirs).abs().max() <= 1
    assert ((exact[differ].abs() % 1 - 0.5).abs() < 1e-4).all()


def quantized(family="bert", data=DATA, reduce_range=False, **settings):
    model = tiny(family)
    quantize_by_inc(model, QuantizationConfig(provider="inc", reduce_range=reduce_range, **settings), data)
    return model


@pytest.fixture
def complete_model(tmp_path, monkeypatch):
    """What INC's `fit` makes of a complete model: each linear layer with scale and zero point of its input, by name."""
    with importing_inc("a test"):
        from neural_compressor import PostTrainingQuantConfig, quantization
        from neural_compressor.config import options
    monkeypatch.setattr(options, "workspace", str(tmp_path))

    def fit(model):
        def calibrate(prepared):
            with torch.no_grad():
                for inputs in DATA:
                    prepared(**inputs)

        asked = PostTrainingQuantConfig(reduce_range=False, excluded_precisions=["bf16"])
        made, found = quantization.fit(copy.deepcopy(model), asked, calib_func=calibrate).model, {}
        for prefix, graph in made.named_modules():
            if not isinstance(graph, torch.fx.GraphModule):
                continue
            modules = dict(graph.named_modules())
            for node in graph.graph.nodes:
                layer = modules.get(node.target) if node.op == "call_module" else None
                if isinstance(layer, QuantizedLinear):
                    grid = [getattr(graph, argument.target) for argument in node.args[0].args[1:3]]
                    found[f"{prefix}.{node.target}".removesuffix(".module")] = layer, grid
        return found

    return fit


@pytest.mark.long
@pytest.mark.parametrize("family", ["bert", "distilbert", "deberta-v2", "modernbert"])
def test_grids_are_those_that_fit_gives_the_complete_model(family, complete_model):
    theirs, ours = complete_model(tiny(family)), quantized(family)
    linears = {name: module for name, module in ours.named_modules() if isinstance(module, FakeQuantLinear)}
    assert theirs.keys() == linears.keys()
    for name, (layer, grid) in theirs.items():
        found = linears[name]
        weight = layer.weight()
        torch.testing.assert_close(found.weight_scale[:, 0].double(), weight.q_per_channel_scales(), rtol=1e-7, atol=0)
        exact = found.weight.detach().double() / weight.q_per_channel_scales()[:, None]
        assert_same_but_ties(integer_rows(found.weight, found.weight_scale), weight.int_repr().float(), exact)
        scale, zero_point = input_grid(found.input_low, found.input_high)
        torch.testing.assert_close(scale, grid[0], rtol=1e-6, atol=0, msg=lambda text, name=name: f"{name}: {text}")
        assert zero_point == grid[1], name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_parameters_and_computes_on_the_grids(family):
    plain, model = tiny(family), tiny(family)
    before = dict(model.named_parameters())
    asked = quantize_by_inc(model, CONFIG, DATA)
    assert asked.calibration_sampling_size == [12]
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] and torch.equal(after[name], p) for name, p in plain.named_parameters())
    linears = [linear for _, _, linear in Encoder(model).linears()]
    assert linears
    assert {type(linear) for linear in linears} == {FakeQuantLinear}
    for linear in linears:
        largest = linear.weight.abs().amax(dim=1, keepdim=True)
        torch.testing.assert_close(linear.weight_scale, largest / 127.5, rtol=1e-6, atol=0)
        assert linear.input_low <= 0 < linear.input_high
    assert any(isinstance(module, FakeQuantEmbedding) for module in model.modules())
    with torch.no_grad():
        expected, found = (each(**batch(seed=9)).logits for each in (plain, model))
    assert 0 < (found - expected).norm() < 0.15 * expected.norm()
    native = tiny(family)
    prepare_qat(native, QuantizationConfig())
    assert set(native.state_dict()) == {name for name in model.state_dict() if not name.endswith("weight_scale")}


@pytest.mark.skipif(integer_products_saturate(), reason="PyTorch's own integer kernels saturate here too")
def test_a_layer_computes_what_incs_quantised_layer_computes(monkeypatch):
    with importing_inc("a test"):
        from neural_compressor import quantization
    kept, fit = {}, quantization.fit

    def keeping(*args, **kwargs):
        kept["model"] = fit(*args, **kwargs)
        return kept["model"]

    monkeypatch.setattr(quantization, "fit", keeping)
    model = quantized()
    graph = kept["model"].model
    linears = [linear for _, _, linear in Encoder(model).linears()]
    generator = torch.Generator().manual_seed(1)
    inputs = [2 * torch.randn(50, linear.in_features, generator=generator) for linear in linears]
    with torch.no_grad():
        theirs = graph(inputs)
        for index, (linear, input) in enumerate(zip(linears, inputs, strict=True)):
            layer = getattr(graph.linears, str(index))
            low, high = -layer.zero_point * layer.scale, (255 - layer.zero_point) * layer.scale
            ours = linear(input).clamp(low, high)  # INC rounds outputs too, to a grid of its own
            tied = integer_rows(linear.weight, linear.weight_scale) != layer.weight().int_repr()
            by_ties = input.abs() @ (tied * linear.weight_scale).T
            assert ((ours - theirs[index]).abs() <= 0.51 * layer.scale + by_ties).all()


def test_a_layer_in_float64():
    query = quantized().bert.encoder.layer[0].attention.self.query
    scale, zero_point = (value.item() for value in input_grid(query.input_low, query.input_high))
    rng = np.random.default_rng(0)
    integers = rng.integers(-20, 276, (50, query.in_features))  # some beyond the grid, on both sides
    x = (integers - zero_point + rng.uniform(-0.4, 0.4, integers.shape)) * scale  # no ties
    on_grid = (np.clip(integers, 0, 255) - zero_point) * scale
    w, rows = query.weight.detach().double().numpy(), query.weight_scale.double().numpy()
    found_w = fake_quantize_rows(query.weight, query.weight_scale).detach().double().numpy()
    np.testing.assert_allclose(rows, np.abs(w).max(axis=1, keepdims=True) / 127.5, rtol=1e-6)
    rounded = np.rint(found_w / rows)
    np.testing.assert_allclose(found_w, rounded * rows, rtol=1e-5, atol=1e-7)
    assert rounded.min() == -128
    assert rounded.max() == 127
    assert np.abs(np.clip(w / rows, -128, 127) - rounded).max() <= 0.5 + 1e-4
    with torch.no_grad():
        found = query(torch.tensor(x).float()).numpy()
    expected = on_grid @ (rounded * rows).T + query.bias.detach().double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_seven_bits_stretch_the_weights_scales():
    eight, seven = quantized(), quantized(reduce_range=True)
    for wide, narrow in zip(fake_quantized_linears(eight), fake_quantized_linears(seven), strict=True):
        assert (narrow.input_low, narrow.input_high) == (wide.input_low, wide.input_high)
        torch.testing.assert_close(narrow.weight_scale, wide.weight_scale * 127.5 / 64)
        integers = torch.round(
            fake_quantize_rows(narrow.weight, narrow.weight_scale, narrow.weight_integers) / narrow.weight_scale
        )
        assert (integers.abs().amax(dim=1) == 64).all()


@pytest.mark.long
@pytest.mark.parametrize("reduce_range", [False, True])
def test_export_computes_the_same(reduce_range, tmp_path, tokenizer):
    texts = ["where is my card", "the money is late", "please send the new card to my old"]
    data = [dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)), *DATA]
    made = export_onnx(quantized(data=data, reduce_range=reduce_range), tokenizer, tmp_path / "out")
    assert made.int8.error <= made.int8.limit


@pytest.mark.long
def test_nothing_is_left_behind_but_the_grids(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    model = tiny().train()
    states = random.getstate(), np.random.get_state()[1].copy(), torch.random.get_rng_state()
    quantize_by_inc(model, CONFIG, DATA)
    assert model.training
    assert fake_quantized_linears(model)[0].training
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.random.get_rng_state(), states[2])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("neural_compressor").level == logging.WARNING
    again, other = tiny(), quantized(data=[{name: value.flip(0) for name, value in inputs.items()} for inputs in DATA])
    quantize_by_inc(again, CONFIG, DATA)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_overrides_leave_layers_and_tables_plain():
    model = quantized(overrides={"classifier": "fp32", "*.word_embeddings": "fp32"})
    assert type(model.classifier) is nn.Linear
    assert type(model.bert.embeddings.word_embeddings) is nn.Embedding
    assert len(fake_quantized_linears(model)) == 19
    tables = quantized(overrides=dict.fromkeys(("bert.encoder", "bert.pooler", "classifier"), "fp32"))
    assert not fake_quantized_linears(tables)
    assert isinstance(tables.bert.embeddings.word_embeddings, FakeQuantEmbedding)


def test_what_it_can_not_do_is_one_line(monkeypatch):
    with pytest.raises(ValueError, match=r"overrides: int4 for classifier .*; allowed: int8"):
        quantized(overrides={"classifier": "int4"})
    with pytest.raises(ValueError, match=r"model: of torch\.bfloat16; allowed"):
        quantize_by_inc(tiny().bfloat16(), CONFIG, DATA)
    native = tiny()
    prepare_qat(native, QuantizationConfig())
    with pytest.raises(ValueError, match="model: quantised already; allowed: a plain one"):
        quantize_by_inc(native, CONFIG, DATA)
    model = tiny()
    model.classifier = type("Special", (nn.Linear,), {})(32, 3)
    with pytest.raises(ValueError, match=r"^classifier of model type 'bert': not quantised by Neural Compressor"):
        quantize_by_inc(model, CONFIG, DATA)
    assert type(model.bert.pooler.dense) is nn.Linear, "nothing is changed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_what_is_raised_while_the_model_runs_is_not_swallowed(error, monkeypatch):
    model = tiny()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(model.bert.pooler, "forward", fail)
    with pytest.raises(error):
        quantize_by_inc(model, CONFIG, DATA)
    assert type(model.classifier) is nn.Linear


def test_what_fit_swallows_is_told(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("no such engine")

    monkeypatch.setattr("torch.quantization.quantize_fx.convert_fx", fail)
    with pytest.raises(ValueError, match=r"provider: inc, .*; allowed: native"):
        quantized()
    assert "no such engine" in capsys.readouterr().err


def test_without_inc_the_provider_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "neural_compressor", None)
    with pytest.raises(ValueError, match=r"provider: inc without .*edgemin-hf\[inc\]"):
        quantized()
