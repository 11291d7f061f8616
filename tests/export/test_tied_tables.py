"""Tables that a graph would hold twice."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemin_hf.export.tied_tables import share_tables

WORDS = np.arange(12, dtype=np.float32).reshape(4, 3)


def graph_of(**tensors):
    """Return a graph that reads row 1 of each tensor that is called a table, and multiplies ones by the others."""
    nodes, outputs = [], []
    for name, values in tensors.items():
        if name.startswith("table"):
            nodes.append(helper.make_node("Gather", [name, "row"], [f"out_{name}"]))
        else:
            nodes.append(helper.make_node("MatMul", [f"ones_{values.shape[0]}", name], [f"out_{name}"]))
        outputs.append(helper.make_tensor_value_info(f"out_{name}", TensorProto.FLOAT, None))
    kept = {**tensors, **{f"ones_{n}": np.ones((1, n), np.float32) for n in (3, 4)}}
    initializers = [numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in kept.items()]
    row = helper.make_tensor_value_info("row", TensorProto.INT64, [1])
    graph = helper.make_graph(nodes, "g", [row], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def answers(model):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"row": np.array([1])})


@pytest.mark.parametrize(("tensors", "stored"), [
    ({"table": WORDS, "head": WORDS.T}, {"table"}),
    ({"table": WORDS, "table_again": WORDS, "head": WORDS.T}, {"table", "table_again"}),
    ({"table": np.zeros((4, 3), np.float32), "table_b": np.zeros((3, 4), np.float32)}, {"table", "table_b"}),
    ({"table": WORDS, "head": WORDS.T + 1}, {"table", "head"}),
])  # fmt: skip
def test_what_is_a_table_transposed_is_made_of_it_once(tensors, stored):
    model = graph_of(**tensors)
    before = answers(model)
    shared = share_tables(model)
    assert {one.name for one in shared.graph.initializer if one.name in tensors} == stored
    for ours, theirs in zip(answers(shared), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
