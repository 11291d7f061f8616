import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from edgemin_hf.export.graph import optimized_graph, quantized_nodes
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_quantized import INT8_GRAPH
from edgemin_hf.export.ptq import quantize_static
from tests.helpers.models import sentences, tiny

TEXTS = [text for text, _ in sentences(24, seed=7)]
CONFIG = tiny().config


@pytest.fixture(scope="module")
def graphs(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("ptq")
    tiny().save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export_baseline(folder / "model", folder / "baseline")
    quantize_static(folder / "baseline" / FP32_GRAPH, tokenizer, CONFIG, TEXTS, folder / "static/model.onnx")
    return folder / "baseline" / FP32_GRAPH, folder / "static/model.onnx"


def logits(graph, tokenizer, texts):
    session = onnxruntime.InferenceSession(str(graph))
    encoded = [tokenizer(text, return_tensors="np") for text in texts]
    names = [node.name for node in session.get_inputs()]
    return np.concatenate([session.run(None, {n: inputs[n] for n in names})[0] for inputs in encoded])


def test_the_static_graph_is_near_the_float_one(graphs, tokenizer):
    float_graph, static = graphs
    unseen = [text for text, _ in sentences(16, seed=8)]
    expected, found = (logits(graph, tokenizer, unseen) for graph in (float_graph, static))
    difference = np.abs(found - expected).mean() / expected.std()
    assert 1e-4 < difference < 0.25


def test_its_products_run_on_integers_with_fixed_ranges(graphs, tmp_path):
    static = graphs[1]
    ran = quantized_nodes(optimized_graph(static, tmp_path / "optimized.onnx"))
    assert sum(ran.values()) >= 3 * 6 + 2, "each linear layer, whatever else"
    assert "DynamicQuantizeMatMul" not in ran
    assert "MatMulInteger" not in ran
    operators = [node.op_type for node in onnx.load(str(static)).graph.node]
    assert "DynamicQuantizeLinear" not in operators
    assert operators.count("QuantizeLinear") > 20


def test_the_calibration_texts_set_the_ranges(graphs, tokenizer, tmp_path):
    float_graph, static = graphs
    quantize_static(float_graph, tokenizer, CONFIG, TEXTS, tmp_path / "again.onnx")
    quantize_static(float_graph, tokenizer, CONFIG, [("card", "late")], tmp_path / "pair.onnx")
    first, again, other = (
        logits(g, tokenizer, TEXTS) for g in (static, tmp_path / "again.onnx", tmp_path / "pair.onnx")
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.onnx", "pair.onnx"]


def test_the_baselines_are_optimums(graphs, tokenizer, tmp_path):
    """Byte for byte what ORTQuantizer writes with its AVX512-VNNI preset, and the configuration beside it."""
    pytest.importorskip("optimum.onnxruntime")
    from datasets import Dataset
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    float_graph, static = graphs
    quantizer = ORTQuantizer(float_graph)
    preset = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer.quantize(preset, tmp_path / "dynamic")
    dynamic = float_graph.parents[1] / INT8_GRAPH
    assert dynamic.read_bytes() == (tmp_path / "dynamic/model_quantized.onnx").read_bytes()
    told = [json.loads((folder / "ort_config.json").read_text()) for folder in (dynamic.parent, tmp_path / "dynamic")]
    assert told[0] == told[1]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (dynamic.parent / name).is_file()

    examples = Dataset.from_list([dict(tokenizer(text)) for text in TEXTS])
    preset = AutoQuantizationConfig.avx512_vnni(is_static=True, per_channel=True)
    ranges = quantizer.fit(
        examples,
        AutoCalibrationConfig.minmax(examples),
        tmp_path / "augmented.onnx",
        operators_to_quantize=preset.operators_to_quantize,
    )
    quantizer.quantize(preset, tmp_path / "static", calibration_tensors_range=ranges)
    assert static.read_bytes() == (tmp_path / "static/model_quantized.onnx").read_bytes()


def test_without_texts(graphs, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="texts: none"):
        quantize_static(graphs[0], tokenizer, CONFIG, [], tmp_path / "none.onnx")


def test_texts_longer_than_the_models_positions_are_cut_there(graphs, tokenizer, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 512
    quantize_static(graphs[0], tokenizer, CONFIG, [" ".join(TEXTS)], tmp_path / "long.onnx")
    assert np.isfinite(logits(tmp_path / "long.onnx", tokenizer, TEXTS[:1])).all()
