"""Integer products in ONNX Runtime are exact on every processor."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemin_hf.export import export_onnx
from edgemin_hf.export.fidelity import Comparison
from edgemin_hf.export.outputs import onnx_outputs
from edgemin_hf.runtime import sessions
from edgemin_hf.runtime.graph import Graph
from tests.helpers.models import tiny

DIGITS = np.random.default_rng(0).integers


def product(weights: np.ndarray) -> bytes:
    rows, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, rows])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [2, columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=5).SerializeToString()


def test_the_product_that_is_asked_for_is_what_onnx_makes():
    assert product(np.full((4, 16), 127, dtype=np.int8)) == sessions._PRODUCT


@pytest.mark.parametrize("rows", [2, 64, 384])
def test_products_that_leave_int16_are_exact(rows):
    weights = DIGITS(100, 128, (rows, 48)).astype(np.int8) * np.int8(-1) ** np.arange(48, dtype=np.int8)
    inputs = DIGITS(200, 256, (2, rows)).astype(np.uint8)
    session = onnxruntime.InferenceSession(product(weights), sessions.session_options(1))
    np.testing.assert_array_equal(session.run(None, {"x": inputs})[0], inputs.astype(int) @ weights.astype(int))


def test_whoever_runs_a_graph_here_asks_for_exact_products(monkeypatch, tmp_path, tokenizer):
    """Wherever this test runs: that a graph is checked by other sums than it is run by would show on few processors."""
    folder = export_onnx(tiny(), tokenizer, tmp_path / "out").folder
    seen = []

    def session(graph, options, **named):
        seen.append(options.get_session_config_entry(sessions.EXACT_PRODUCTS))
        return made(graph, options, **named)

    made = onnxruntime.InferenceSession
    monkeypatch.setattr(sessions, "integer_products_saturate", lambda: True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    Graph(folder / "onnx/model.onnx")
    Comparison(tiny(), folder / "onnx/model.onnx")
    onnx_outputs(folder / "onnx/model.onnx", tokenizer)
    assert seen == ["1"] * 3


@pytest.mark.parametrize("saturates", [False, True])
def test_only_a_processor_that_saturates_is_asked_for_more(saturates, monkeypatch):
    monkeypatch.setattr(sessions, "integer_products_saturate", lambda: saturates)
    options = sessions.session_options()
    if saturates:
        assert options.get_session_config_entry(sessions.EXACT_PRODUCTS) == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(sessions.EXACT_PRODUCTS)
