"""Precision by name: which pattern decides, modules of several kinds in one model, and their one graph."""

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.export.graph import optimized_graph, quantized_nodes
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.pruned_shape import layer_numbers
from edgemin_hf.modeling.surgery import cut_like, remove_layers
from edgemin_hf.quantization.int4 import FakeInt4Linear
from edgemin_hf.quantization.integer import integer_copy, plain_copy, quantized_weights
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    calibrate,
    fake_quantize_rows,
    prepare_qat,
)
from edgemin_hf.quantization.precision import precisions
from tests.helpers.models import FAMILIES, batch, sentences, tiny
from tests.helpers.optimum import ORTConfig

LAYER = "bert.encoder.layer"
MIXED = {f"{LAYER}.1.intermediate": "int4", "classifier": "fp32", "*.word_embeddings": "int4"}


def quantized(family="bert", texts=None, **settings):
    model = tiny(family)
    prepare_qat(model, QuantizationConfig(**settings))
    batches = [batch(seed=seed) for seed in range(4)] + ([] if texts is None else [texts])
    calibrate(model, batches, lambda inputs: model(**inputs))
    return model.eval()


def kinds(model):
    """What each linear layer and each large table is, by its name."""
    words = {nn.Linear: "fp32", nn.Embedding: "fp32", FakeQuantLinear: "int8", FakeInt4Linear: "int4"}
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantEmbedding):
            found[name] = "int8" if module.group_size is None else "int4"
        elif isinstance(module, nn.Linear | nn.Embedding):
            found[name] = words[type(module)]
    return found


def test_each_module_gets_what_its_name_asks_for():
    model = tiny()
    ids = {id(parameter) for parameter in model.parameters()}
    prepare_qat(model, QuantizationConfig(overrides=MIXED))
    found = kinds(model)
    assert found.pop(f"{LAYER}.1.intermediate.dense") == "int4"
    assert found.pop("classifier") == "fp32"
    assert found.pop("bert.embeddings.word_embeddings") == "int4"
    assert found.pop("bert.embeddings.token_type_embeddings") == "fp32", "too small to be worth it"
    assert set(found.values()) == {"int8"}
    assert ids == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({f"{LAYER}.1": "fp32", f"{LAYER}.1.attention": "int4"}, "int4"),
        ({f"{LAYER}.1.attention": "int4", f"{LAYER}.1": "fp32"}, "int4"),
        ({"*": "int4", "*.query": "fp32"}, "fp32"),
        ({f"{LAYER}.*": "int4", f"{LAYER}.1": "fp32"}, "fp32"),
        ({f"{LAYER}.[01]": "int4", f"{LAYER}.1.*": "fp32"}, "fp32"),
        ({"*.attention.*": "int4", f"{LAYER}.2": "fp32"}, "int4"),
    ],
)
def test_the_most_specific_pattern_decides_in_whatever_order(overrides, expected):
    model = tiny()
    prepare_qat(model, QuantizationConfig(overrides=overrides))
    assert kinds(model)[f"{LAYER}.1.attention.self.query"] == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overrides": {"clasifier": "fp32"}}, "overrides: clasifier, which matches no .*; allowed: .*classifier"),
        ({"overrides": {"bert.encoder.layer.3": "int4"}}, "overrides: bert.encoder.layer.3, which matches no"),
        ({"overrides": {"*.token_type_embeddings": "int4"}}, "token_type_embeddings, which matches no"),
        ({"overrides": {"*.query": "int4", "*quer?y": "int4"}}, r"overrides: \*quer\?y, which matches no"),
        ({"overrides": {"bert.*.query": "int4", "*.self.query": "fp32"}}, "equally specific, disagree on bert.enc"),
        ({"overrides": {"*": "fp32"}}, "overrides: fp32 for every layer and table; allowed: int8 or int4"),
        ({"overrides": {"*.query": "int4"}, "provider": "inc"}, "overrides: int4 for .*query beside provider inc"),
    ],
)
def test_overrides_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        prepare_qat(tiny(), QuantizationConfig(**settings))


def test_impossible_precisions_are_named():
    with pytest.raises(ValueError, match="overrides: int3 for classifier; allowed: int8, int4, fp32"):
        QuantizationConfig(overrides={"classifier": "int3"})


def test_what_was_prepared_otherwise_becomes_what_is_asked_for():
    model = quantized()
    ranges = {name: m.input_high for name, m in model.named_modules() if isinstance(m, FakeQuantLinear)}
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    prepare_qat(model, QuantizationConfig(embeddings="fp32", overrides={"*.attention.*": "int4", "classifier": "fp32"}))
    assert parameters == {name: id(parameter) for name, parameter in model.named_parameters()}
    assert kinds(model)["bert.embeddings.word_embeddings"] == kinds(model)["classifier"] == "fp32"
    for name, module in model.named_modules():
        if isinstance(module, FakeQuantLinear):
            assert module.input_high is ranges[name]
    prepare_qat(model, QuantizationConfig(embeddings="fp32", weights="int4", overrides={"classifier": "int8"}))
    assert {kind for name, kind in kinds(model).items() if name.startswith(LAYER)} == {"int4"}


def test_the_graph_is_named_by_most_of_the_weights_of_linear_layers():
    def name(**settings):
        model = tiny()
        prepare_qat(model, QuantizationConfig(**settings))
        return quantized_weights(model)

    assert name(overrides=MIXED) == "int8"
    assert name(overrides={f"{LAYER}.?": "int4"}) == "int4"
    assert name(weights="int4", overrides={"classifier": "int8"}) == "int4"
    tables_only = {"*": "fp32", "bert.embeddings": "int8"}
    assert name(overrides=tables_only) == "int8"
    assert name(overrides={**tables_only, "bert.embeddings": "int4"}) == "int4"
    tie = {"*": "fp32", f"{LAYER}.0.attention.self.query": "int4", f"{LAYER}.0.attention.self.key": "int8"}
    assert name(overrides=tie) == "int8"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_without_weights_has_the_same_names(family):
    model = tiny(family)
    with torch.device("meta"):
        unloaded = AutoModelForSequenceClassification.from_config(model.config)
    config = QuantizationConfig(overrides={"*.0.*": "int4"})
    found = [
        [(name, wanted[module]) for name, module in one.named_modules() if module in wanted]
        for one in (model, unloaded)
        for wanted in [precisions(one, config)]
    ]
    assert found[0] == found[1]
    assert {precision for _, precision in found[0]} == {"int8", "int4"}


def test_removed_layers_leave_the_others_as_they_were_prepared(tmp_path):
    config = QuantizationConfig(overrides={f"{LAYER}.0": "int4", f"{LAYER}.2": "fp32"})
    model = tiny()
    prepare_qat(model, config)
    calibrate(model, [batch()], lambda inputs: model(**inputs))
    remove_layers(model, [1, 2])
    expected = model.eval()(**batch()).logits
    before = {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantLinear)}
    prepare_qat(model, config)
    assert before == {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantLinear)}
    model.config.save_pretrained(tmp_path)
    save_model(model, str(tmp_path / "model.safetensors"), metadata={"format": "pt"})
    again = load_pruned(tmp_path)
    prepare_qat(again, config)
    load_model(again, tmp_path / "model.safetensors")
    assert kinds(again)[f"{LAYER}.0.output.dense"] == "int8"
    assert kinds(again)[f"{LAYER}.1.output.dense"] == "fp32"
    assert torch.equal(again(**batch()).logits, expected)
    remove_layers(again, [1])
    assert layer_numbers(again.config) == [2]
    assert layer_numbers(plain_copy(again).config) is None


def test_a_checkpoint_takes_its_own_layers_from_a_prepared_model():
    config = QuantizationConfig(overrides={f"{LAYER}.0": "int4", f"{LAYER}.2": "fp32"})
    trained, resumed = tiny(), tiny()
    for model in (trained, resumed):
        prepare_qat(model, config)
    remove_layers(trained, [1, 2])
    cut_like(resumed, trained.config)
    assert kinds(resumed) == kinds(trained)
    assert layer_numbers(resumed.config) == [1, 2]


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert"])
def test_the_integer_copy_of_a_mixed_model_computes_the_same(family):
    model = quantized(family, overrides={"*.0.*": "int4", "classifier": "fp32", "*.1": "fp32"})
    assert {"int8", "int4", "fp32"} <= set(kinds(model).values())
    with torch.no_grad():
        torch.testing.assert_close(integer_copy(model)(**batch()).logits, model(**batch()).logits, rtol=1e-3, atol=1e-3)


def test_the_graph_of_a_mixed_model_runs_each_layer_as_it_was_trained(tokenizer, tmp_path):
    texts = [text for text, _ in sentences(24, seed=7)]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))
    model = quantized(texts=inputs, overrides=MIXED)
    made = export_onnx(model, tokenizer, tmp_path / "export", texts=texts)
    assert made.int8 is not None
    assert made.int4 is None
    graph = tmp_path / "export/onnx/model_quantized.onnx"
    assert not (tmp_path / "export/onnx/model_q4.onnx").exists()
    nodes = quantized_nodes(optimized_graph(graph, tmp_path / "optimized.onnx"))
    integer = sum(nodes.get(op, 0) for op in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm"))
    assert (integer, nodes["MatMulNBits"]) == (3 * 6 + 2 - 2, 1)
    assert "edgemin_layers" not in (tmp_path / "export/config.json").read_text()
    assert AutoConfig.from_pretrained(tmp_path / "export").num_hidden_layers == 3


def test_seven_bits_are_the_grid_of_numpy_and_never_saturate():
    torch.manual_seed(0)
    weight = torch.randn(9, 33)
    weight[4] = 0
    rows = weight.numpy().astype(np.float64)
    scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / 64
    found = fake_quantize_rows(weight, integers=(-64, 64)).numpy()
    np.testing.assert_allclose(found, np.round(rows / scale) * scale, atol=1e-6)
    assert np.abs(np.round(found / scale)).max() == 64
    assert 2 * 255 * 64 <= 2**15 - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_reduced_range_is_stored_as_it_was_trained(family):
    model = quantized(family, reduce_range=True)
    integer = integer_copy(model)
    linears = {name for name, module in model.named_modules() if isinstance(module, FakeQuantLinear)}
    stored = {name: buffer.int() for name, buffer in integer.named_buffers() if buffer.dtype == torch.int8}
    assert linears <= {name.removesuffix(".weight") for name in stored}
    for name, values in stored.items():
        largest = values.abs().max().item()
        assert largest == (64 if name.removesuffix(".weight") in linears else 127), name
    with torch.no_grad():
        torch.testing.assert_close(integer(**batch()).logits, model(**batch()).logits, rtol=1e-3, atol=1e-3)
        assert not torch.equal(model(**batch()).logits, quantized(family, reduce_range=False)(**batch()).logits)


@pytest.mark.parametrize(("reduce_range", "largest"), [(True, 64), (False, 127)])
def test_the_range_is_in_the_graph_and_comes_back_with_the_config(reduce_range, largest, tokenizer, tmp_path):
    texts = [text for text, _ in sentences(24, seed=7)]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))
    config = {"reduce_range": reduce_range, "embeddings": "fp32"}
    model = quantized(texts=inputs, **config)
    made = export_onnx(model, tokenizer, tmp_path / "export", texts=texts)
    assert made.int8 is not None
    graph = onnx.load(tmp_path / "export/onnx/model_quantized.onnx").graph
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.data_type == 3]
    matrices = [values for values in stored if values.ndim == 2]
    assert len(matrices) == sum(1 for _ in Encoder(model).linears())
    assert {int(np.abs(values.astype(int)).max()) for values in matrices} == {largest}
    assert ORTConfig.from_pretrained(tmp_path / "export").quantization.reduce_range == reduce_range
    again = tiny(seed=5)
    prepare_qat(again, QuantizationConfig(**config))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(**batch()).logits, model(**batch()).logits)
