"""`ort_config.json`, in which Optimum says how a graph for ONNX Runtime was quantised.

It is written here as Optimum's `ORTConfig` writes it, so that nobody needs Optimum to export.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from edgemin_hf.export.ptq import DYNAMIC_OPERATORS


def write_ort_config(folder: Path, graph: Path) -> None:
    """Write `ort_config.json`, read off a quantised graph, into an export's folder.

    An INT8 graph is static and in QDQ form: weights int8 by output, symmetric; inputs uint8 by tensor. The nodes that
    compute so are named, since others of their kind stay in floating point (attention's products), and tables of
    embeddings, which are no QDQ, can't be told. Neither can the packed weights of INT4: they are quantised without
    their inputs, and Optimum knows static and dynamic quantisation alone. There the part "quantization" stays empty.

    Args:
        folder: The folder of `config.json`.
        graph: The quantised ONNX file.
    """
    model = onnx.load(graph, load_external_data=False)
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    products = [node for node in model.graph.node if len(dequantized & set(node.input)) > 1]
    quantization: dict[str, object] = {}
    if products:
        operators = sorted({node.op_type for node in products})
        quantization = _quantization(operators, axes=operators, nodes=[node.name for node in products]) | {
            "reduce_range": _largest_weight(model, products) <= 64
        }
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    _write(folder, quantization, opset, external=external)


def write_dynamic_ort_config(folder: Path) -> None:
    """Write the `ort_config.json` of a graph that `quantize_dynamic` made, into its folder."""
    dynamic = {"is_static": False, "format": "QOperator", "mode": "IntegerOps"}
    _write(folder, _quantization(DYNAMIC_OPERATORS, axes=["MatMul"]) | dynamic)


def _quantization(operators: Iterable[str], axes: Iterable[str], nodes: Sequence[str] = ()) -> dict[str, object]:
    """Return the fields of Optimum's `QuantizationConfig`: static and QDQ, of int8 weights and uint8 activations."""
    return {
        "is_static": True,
        "format": "QDQ",
        "mode": "QLinearOps",
        "activations_dtype": "QUInt8",
        "activations_symmetric": False,
        "weights_dtype": "QInt8",
        "weights_symmetric": True,
        "per_channel": True,
        "reduce_range": False,
        "nodes_to_quantize": list(nodes),
        "nodes_to_exclude": [],
        "operators_to_quantize": list(operators),
        "qdq_add_pair_to_weight": False,
        "qdq_dedicated_pair": False,
        "qdq_op_type_per_channel_support_to_axis": dict.fromkeys(axes, 1),
    }


def _write(folder: Path, quantization: dict[str, object], opset: int | None = None, *, external: bool = False) -> None:
    config = {
        "opset": opset,
        "use_external_data_format": external,
        "one_external_file": True,
        "optimization": {},
        "quantization": quantization,
    }
    (folder / "ort_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _largest_weight(model: onnx.ModelProto, products: Sequence[onnx.NodeProto]) -> int:
    """Return the largest integer, by magnitude, of the weights that products read."""
    maker = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = [maker[name].input[0] for product in products for name in product.input if name in maker]
    weights = [onnx.numpy_helper.to_array(stored[name]) for name in sources if name in stored]
    return max(int(np.abs(weight.astype(np.int16)).max()) for weight in weights)
