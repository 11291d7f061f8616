"""Attention as one node: the same numbers, in every family that is exported, and nothing left of the old ones."""

import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgemin_hf.export.fused_attention import fuse_attention
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.quantization.integer import plain_copy
from edgemin_hf.utils.compat import RELEASE
from tests.helpers.models import FAMILIES, batch, tiny

FUSED = {"bert", "roberta", "xlm-roberta", "electra", "mpnet", "camembert", "ernie", "albert"}
"""DeBERTa adds scores of positions, ModernBERT rotates queries and keys by head, and transformers 4's DistilBERT fills
masked scores in."""
if RELEASE > 4:
    FUSED |= {"distilbert"}


def run(graph, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    return session.run(None, {node.name: feeds[node.name] for node in session.get_inputs()})[0]


def types(graph):
    return Counter(node.op_type for node in graph.graph.node)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_numbers_stay(family, float_graph):
    model, path = float_graph(family)
    before = onnx.load(path)
    after = fuse_attention(before)
    if family in FUSED:
        assert types(after)["Attention"] == model.config.num_hidden_layers
        assert types(after)["Softmax"] == 0
        assert after.opset_import[0].version == 23
        onnx.checker.check_model(after, full_check=True)
    else:
        assert after is before
    for inputs in (batch((9, 3, 6)), batch((5, 7), side="left", pad_to=12), batch((4,))):
        np.testing.assert_allclose(run(after, inputs), run(before, inputs), rtol=1e-5, atol=1e-6)


def told_by(graph, *, size):
    """A graph whose heads are told by their size, as those of transformers 5 are, or by their number, as those of 4."""
    graph = copy.deepcopy(graph)
    made = {node.output[0]: node for node in graph.graph.node}
    for node in graph.graph.node:
        shape = made.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is not None and shape.op_type == "Concat" and len(shape.input) == 4:
            widths = [numpy_helper.to_array(made[name].attribute[0].t).item() for name in shape.input[-2:]]
            heads = 32 // widths[1] if widths[0] == -1 else widths[0]
            told = [0, 0, -1, widths[1]] if size else [0, -1, heads, widths[1]]
            shape.input[:] = [f"{shape.name}_{place}" for place in range(4)]
            graph.graph.initializer.extend(
                numpy_helper.from_array(np.array([number]), name)
                for name, number in zip(shape.input, told, strict=True)
            )
    return graph


@pytest.mark.parametrize("size", [True, False])
def test_heads_are_told_by_their_number_or_their_size(size, float_graph):
    before = told_by(onnx.load(float_graph("bert")[1]), size=size)
    after = fuse_attention(before)
    assert [helper.get_node_attr_value(n, "q_num_heads") for n in after.graph.node if n.op_type == "Attention"] == [
        4
    ] * 3
    np.testing.assert_allclose(run(after, batch()), run(before, batch()), rtol=1e-5, atol=1e-6)


def test_layers_of_different_heads(tmp_path):
    model = tiny("bert")
    remove(model, Selection([[0, 1], [3], [1, 2, 3]], [range(32)] * 3))
    write_graph(plain_copy(model), tmp_path / "onnx/model.onnx")
    before = onnx.load(tmp_path / "onnx/model.onnx")
    after = fuse_attention(before)
    heads = [helper.get_node_attr_value(n, "q_num_heads") for n in after.graph.node if n.op_type == "Attention"]
    assert heads == [2, 1, 3]
    np.testing.assert_allclose(run(after, batch()), run(before, batch()), rtol=1e-5, atol=1e-6)


def test_one_mask_serves_all_layers(float_graph):
    before = onnx.load(float_graph("bert")[1])
    assert types(fuse_attention(before))["Expand"] == types(before)["Expand"] + 1


def test_a_softmax_without_attention_stays(tmp_path):
    value = [helper.make_tensor_value_info(name, 1, ["n", 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert fuse_attention(model) is model
