"""`ort_config.json`, in which Optimum says how a graph for ONNX Runtime was quantised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType
from optimum.onnxruntime import ORTConfig
from optimum.onnxruntime.configuration import QuantizationConfig


def write_ort_config(folder: Path, graph: Path) -> None:
    """Write Optimum's `ort_config.json`, read off a quantised graph, into an export's folder.

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
    quantization = None
    if products:
        operators = sorted({node.op_type for node in products})
        quantization = QuantizationConfig(
            is_static=True,
            format=QuantFormat.QDQ,
            activations_dtype=QuantType.QUInt8,
            weights_dtype=QuantType.QInt8,
            per_channel=True,
            reduce_range=_largest_weight(model, products) <= 64,
            operators_to_quantize=operators,
            nodes_to_quantize=[node.name for node in products],
            qdq_op_type_per_channel_support_to_axis=dict.fromkeys(operators, 1),
        )
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    ORTConfig(opset=opset, use_external_data_format=external, quantization=quantization).save_pretrained(folder)


def _largest_weight(model: onnx.ModelProto, products: Sequence[onnx.NodeProto]) -> int:
    """Return the largest integer, by magnitude, of the weights that products read."""
    maker = {output: node for node in model.graph.node for output in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    sources = [maker[name].input[0] for product in products for name in product.input if name in maker]
    weights = [onnx.numpy_helper.to_array(stored[name]) for name in sources if name in stored]
    return max(int(np.abs(weight.astype(np.int16)).max()) for weight in weights)
