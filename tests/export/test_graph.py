import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from edgemin_hf.export.graph import (
    COMPONENTS,
    bytes_by_component,
    count_parameters,
    optimized_graph,
    quantized_nodes,
    size_bytes,
)
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.quantization.integer import plain_copy

BERT_LIKE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
}  # fmt: skip
FAMILIES = {
    "bert": BERT_LIKE,
    "roberta": BERT_LIKE,
    "xlm-roberta": BERT_LIKE,
    "electra": BERT_LIKE | {"embedding_size": 16},
    "mpnet": BERT_LIKE,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
}


def tiny_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=200, max_position_embeddings=24, num_labels=5, **FAMILIES[family])
    return AutoModelForSequenceClassification.from_config(config).eval()


def export(model: PreTrainedModel, folder: Path) -> Path:
    write_graph(plain_copy(model), folder / "onnx/model.onnx")
    return folder / "onnx/model.onnx"


@pytest.fixture(scope="module", params=FAMILIES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Path]:
    """A model as after training: no two of its tensors are equal."""
    model = tiny_model(request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model, export(model, tmp_path_factory.mktemp(request.param))


def expected_component(parameter: str) -> str:
    known = {"LayerNorm": "rest", "layer_norm": "rest", "word_embeddings": "word embeddings", "attention": "attention"}
    known |= {"embeddings": "other embeddings", "layer.": "FFN", "pooler": "head", "classifier": "head"}
    return "attention" if "relative" in parameter else next(known[part] for part in known if part in parameter)


def test_a_trained_model_has_as_many_parameters_in_onnx_as_in_pytorch(exported):
    model, path = exported
    assert count_parameters(path) == sum(parameter.numel() for parameter in model.parameters())


def test_components_hold_their_parameters_and_add_up_to_the_file(exported):
    model, path = exported
    sizes = bytes_by_component(path)
    expected = dict.fromkeys(COMPONENTS, 0)
    for name, parameter in model.named_parameters():
        expected[expected_component(name)] += 4 * parameter.numel()
    assert tuple(sizes) == COMPONENTS
    assert sum(sizes.values()) == size_bytes(path) == path.stat().st_size
    for component in COMPONENTS[:-1]:  # The rest is the structure of the graph, and LayerNorm.
        # On top of its numbers a tensor has a header with its name and shape.
        assert expected[component] < sizes[component] < 1.05 * expected[component] + 200
    assert sizes["rest"] > expected["rest"]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return export(tiny_model("bert"), tmp_path_factory.mktemp("untrained"))


def test_tensors_of_equal_values_count_once_because_the_exporter_stores_them_once(fp32):
    model = tiny_model("bert")  # Untrained: its biases are zeros and its LayerNorm weights ones.
    distinct = {(tuple(p.shape), p.detach().numpy().tobytes()) for p in model.parameters()}
    assert count_parameters(fp32) == sum(math.prod(shape) for shape, _ in distinct)


def test_dynamic_quantisation_keeps_the_parameters_and_quarters_the_weights(fp32, tmp_path):
    int8 = tmp_path / "int8.onnx"
    quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
    assert count_parameters(int8) == count_parameters(fp32)
    before, after = bytes_by_component(fp32), bytes_by_component(int8)
    assert sum(after.values()) == size_bytes(int8)
    for component in ("word embeddings", "FFN"):
        assert after[component] == pytest.approx(before[component] / 4, rel=0.15)


def test_only_the_optimised_int8_graph_computes_in_fused_integer_kernels(fp32, tmp_path):
    int8 = tmp_path / "int8.onnx"
    quantize_dynamic(fp32, int8, weight_type=QuantType.QInt8)
    linears = 2 * 6 + 2  # Two layers, pooler and classifier.
    assert quantized_nodes(int8) == {"MatMulInteger": linears}
    optimized = optimized_graph(int8, tmp_path / "optimized.onnx")
    assert sum(quantized_nodes(optimized).values()) == linears
    assert quantized_nodes(optimized_graph(fp32, tmp_path / "optimized_fp32.onnx")) == {}


def test_external_data_belongs_to_the_model(fp32, tmp_path):
    split = tmp_path / "split" / "model.onnx"
    split.parent.mkdir()
    onnx.save_model(onnx.load(fp32), split, save_as_external_data=True, location="model.data", size_threshold=0)
    assert size_bytes(split) == split.stat().st_size + (split.parent / "model.data").stat().st_size
    sizes = bytes_by_component(split)
    assert sum(sizes.values()) == size_bytes(split)
    assert sizes["FFN"] == pytest.approx(bytes_by_component(fp32)["FFN"], rel=0.05)
    assert count_parameters(split) == count_parameters(fp32)
    (split.parent / "model.data").unlink()
    with pytest.raises(FileNotFoundError):
        size_bytes(split)


def integer_graph(path: Path) -> Path:
    """An int8 embedding with a scale a row, and one product in QDQ form with an int32 bias."""
    scope = "/bert/encoder/layer.0/intermediate/dense/"
    tensors = {
        "table": np.ones((50, 8), np.int8), "table_factor": np.ones((50, 1), np.float32),
        "weight": np.ones((8, 4), np.int8), "weight_factor": np.ones(4, np.float32),
        "weight_zero": np.zeros(4, np.int8), "bias": np.ones(4, np.int32),
        "bias_factor": np.ones(4, np.float32), "bias_zero": np.zeros(4, np.int32),
        "input_factor": np.float32(0.1), "input_zero": np.uint8(128), "shape": np.array([-1, 8]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "/bert/embeddings/word_embeddings/Gather"),
        helper.make_node("Cast", ["rows"], ["cast"], "/bert/embeddings/word_embeddings/Cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", ["table_factor", "ids"], ["factors"], "/bert/embeddings/word_embeddings/Gather_1"),
        helper.make_node("Mul", ["cast", "factors"], ["embedded"], "/bert/embeddings/word_embeddings/Mul"),
        helper.make_node("Reshape", ["embedded", "shape"], ["flat"], scope + "Reshape"),
        helper.make_node("QuantizeLinear", ["flat", "input_factor", "input_zero"], ["q"], scope + "QuantizeLinear"),
        helper.make_node("DequantizeLinear", ["q", "input_factor", "input_zero"], ["x"], scope + "DequantizeLinear"),
        # The exporter shares equal tensors like this.
        helper.make_node("Identity", ["weight_factor"], ["shared_factor"], "Identity_1"),
        # Nodes that come out of a fusion may have no name: then the scope is that of the node after them.
        helper.make_node("DequantizeLinear", ["weight", "shared_factor", "weight_zero"], ["w"], axis=1),
        helper.make_node("DequantizeLinear", ["bias", "bias_factor", "bias_zero"], ["b"], axis=0),
        helper.make_node("Gemm", ["x", "w", "b"], ["product"]),
        helper.make_node("Erf", ["product"], ["y"], scope + "Erf"),
    ]
    graph = helper.make_graph(
        nodes,
        "integer",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def test_scales_zero_points_and_shapes_are_no_parameters(tmp_path):
    path = integer_graph(tmp_path / "model.onnx")
    assert count_parameters(path) == 50 * 8 + 8 * 4 + 4
    sizes = bytes_by_component(path)
    assert 50 * 8 < sizes["word embeddings"] < 50 * 8 + 50
    assert 8 * 4 + 4 * 4 < sizes["FFN"] < 8 * 4 + 4 * 4 + 50
    assert sum(sizes.values()) == size_bytes(path)
    assert not quantized_nodes(path)


def test_a_weight_in_a_constant_node_is_a_parameter(tmp_path):
    weight = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ones((8, 4), np.float32)))
    number = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array([2.0], np.float32)))
    nodes = [
        weight,
        number,
        helper.make_node("MatMul", ["x", "w"], ["xw"], "/classifier/MatMul"),
        helper.make_node("Div", ["xw", "two"], ["y"], "/classifier/Div"),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name, width in (("x", 8), ("y", 4))
    ]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(helper.make_graph(nodes, "constants", values[:1], values[1:])), path)
    assert count_parameters(path) == 8 * 4
    assert bytes_by_component(path)["head"] > 8 * 4 * 4


def test_a_missing_file_is_reported(tmp_path):
    for function in (count_parameters, size_bytes, bytes_by_component, quantized_nodes):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "none.onnx")
