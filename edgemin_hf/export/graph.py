"""Read ONNX files: how many parameters, how many bytes and in which component, which quantised kernels."""

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

COMPONENTS = ("word embeddings", "other embeddings", "attention", "FFN", "head", "rest")
"""The keys of `bytes_by_component`, in the order in which a token passes them."""

QUANTIZED_OPS = frozenset(
    {
        "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "DynamicQuantizeMatMul", "QAttention",
        "MatMulNBits", "GatherBlockQuantized",
    }
)  # fmt: skip

# The first pattern that occurs in a scope decides, so LayerNorm comes before the block that holds it.
_SCOPES = (
    (re.compile(r"layer_?norm", re.IGNORECASE), "rest"),
    (re.compile(r"word_embeddings"), "word embeddings"),
    (re.compile(r"embeddings"), "other embeddings"),
    (re.compile(r"attention"), "attention"),
    (re.compile(r"layer\.\d+[./](intermediate|output|ffn)[./]"), "FFN"),
    (re.compile(r"pooler|classifier|qa_outputs"), "head"),
)
# Operators between a stored tensor and the layer that uses it.
_PASSED_THROUGH = frozenset({"Identity", "DequantizeLinear", "Transpose", "Cast"})
# Inputs that hold scales or zero points.
_QUANTIZATION_INPUTS = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "MatMulInteger": (2, 3), "MatMulNBits": (2, 3),
    "MatMulIntegerToFloat": (2, 3, 4, 5), "GatherBlockQuantized": (2, 3),
}  # fmt: skip
# Input that holds packed weights, and that which holds the scales of their groups.
_PACKED_INPUTS = {"MatMulNBits": (1, 2), "GatherBlockQuantized": (0, 2)}
_WEIGHT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8})


def count_parameters(path: Path | str) -> int:
    """Count the model parameters that a graph holds.

    These are the elements of its weights, biases and LayerNorm tensors, in floating point or quantised, also where
    several share a byte. Scales, zero points, scalars, masks and shapes are left out. A tensor that the exporter stored
    once for several layers, because it is tied or because its values are equal, counts once.

    Args:
        path: An ONNX file as exported or quantised, not as optimised by ONNX Runtime.

    Returns:
        The number of parameters.

    Raises:
        FileNotFoundError: There is no such file.
    """
    graph = _Graph(path)
    return sum(graph.elements(name, tensor) for name, tensor in graph.tensors() if graph.is_parameter(name, tensor))


def size_bytes(path: Path | str) -> int:
    """Give the size of a model on disk: the ONNX file and the external data files that it refers to.

    Args:
        path: An ONNX file.

    Returns:
        The size in bytes.

    Raises:
        FileNotFoundError: The file, or one that it refers to, does not exist.
    """
    path = Path(path)
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in external_data(path))


def external_data(path: Path | str) -> list[str]:
    """Name the files beside a graph that hold some of its tensors, sorted.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return sorted({ExternalDataInfo(t).location for _, t in _Graph(path).tensors() if uses_external_data(t)})


def bytes_by_component(path: Path | str) -> dict[str, int]:
    """Say which component of the encoder the bytes of a model belong to.

    The parameters go by the scope in the name of the node that uses them, such as
    `/bert/encoder/layer.0/attention/self/query/MatMul`, because the exporter renames weights that it transposes.
    Scales of packed weights go with them: in groups of 32 they are a fifth of the bytes. LayerNorm, other scales, zero
    points and the structure of the graph are "rest".

    Args:
        path: An ONNX file of a BERT, RoBERTa, XLM-R, ELECTRA, DistilBERT or MPNet encoder.

    Returns:
        Bytes by component, with every key of `COMPONENTS`; they add up to `size_bytes(path)`.

    Raises:
        FileNotFoundError: The file, or one that it refers to, does not exist.
    """
    graph = _Graph(path)
    sizes = dict.fromkeys(COMPONENTS, 0)
    for name, tensor in graph.tensors():
        if graph.is_parameter(name, tensor) or graph.scales_groups(name):
            sizes[graph.component(name)] += _tensor_bytes(tensor)
    sizes["rest"] += size_bytes(path) - sum(sizes.values())
    return sizes


def quantized_nodes(path: Path | str) -> dict[str, int]:
    """Count the integer matrix products of a graph, and the operators that read packed weights.

    In a graph as exported integer products are still spelt out as float products of dequantised tensors: call this on
    what `optimized_graph` writes to see what really runs in integers.

    Args:
        path: An ONNX file.

    Returns:
        Number of nodes by operator, without the operators that do not occur.

    Raises:
        FileNotFoundError: There is no such file.
    """
    return dict(Counter(n.op_type for n in _Graph(path).proto.node if n.op_type in QUANTIZED_OPS))


def optimized_graph(path: Path | str, out: Path | str) -> Path:
    """Let ONNX Runtime write the graph that it runs on this machine's CPU.

    Args:
        path: An ONNX file.
        out: Where to write the optimised graph. It suits this machine and version of ONNX Runtime only.

    Returns:
        The path of the optimised graph.

    Raises:
        onnxruntime.capi.onnxruntime_pybind11_state.NoSuchFile: There is no file at `path`.
    """
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 3  # It warns that the graph holds kernels for this machine only, which is the point.
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Path(out)


class _Graph:
    """A graph and who uses which of its values."""

    def __init__(self, path: Path | str) -> None:
        self.proto = onnx.load(str(path), load_external_data=False).graph
        self.dims = {tensor.name: tuple(tensor.dims) for tensor in self.proto.initializer}
        self.uses: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.proto.node:
            for position, value in enumerate(node.input):
                self.uses.setdefault(value, []).append((node, position))

    def tensors(self) -> Iterator[tuple[str, TensorProto]]:
        """Give the stored tensors by the name of their value: initialisers, and constants that are no lone number."""
        yield from ((tensor.name, tensor) for tensor in self.proto.initializer)
        for node in self.proto.node:
            for attribute in node.attribute if node.op_type == "Constant" else ():
                if attribute.name == "value" and prod(attribute.t.dims) > 1:
                    yield node.output[0], attribute.t

    def is_parameter(self, name: str, tensor: TensorProto) -> bool:
        """Tell the model's parameters from scales, zero points, scalars and the arithmetic of shapes."""
        if not tensor.dims or name.endswith(("scale", "zero_point")):
            return False
        uses = list(self._direct_uses(name))
        if any(position in _QUANTIZATION_INPUTS.get(node.op_type, ()) for node, position in uses):
            return False
        if prod(tensor.dims[1:]) == 1 and any(node.op_type == "Gather" for node, _ in uses):
            return False  # One number a row: the scales of a quantised embedding.
        if tensor.data_type == TensorProto.INT32:  # A bias if it is dequantised, else indices.
            return any(node.op_type == "DequantizeLinear" for node, _ in uses)
        return tensor.data_type in _WEIGHT_TYPES

    def elements(self, name: str, tensor: TensorProto) -> int:
        """Count the numbers in a stored tensor; packed ones without those that fill up the last group of a row."""
        for node, position in self._direct_uses(name):
            if position == _PACKED_INPUTS.get(node.op_type, (None,))[0]:
                attributes = {attribute.name: attribute.i for attribute in node.attribute}
                if node.op_type == "MatMulNBits":
                    return int(attributes["K"] * attributes["N"])
                return int(prod(tensor.dims) * 8 // attributes["bits"])
            if any(after.op_type == "BitwiseAnd" for after, _ in self.uses.get(node.output[0], ())):
                return int(2 * prod(tensor.dims))  # a table of packed rows, whose bytes are halved once they are read
        return prod(tensor.dims)

    def scales_groups(self, name: str) -> bool:
        """Tell the scales of packed weights from all else."""
        if len(self.dims.get(name, ())) == 3 and any(node.op_type == "Gather" for node, _ in self._direct_uses(name)):
            return True  # (rows, groups, 1), of a table that ONNX's own operators read
        return any(_PACKED_INPUTS.get(n.op_type, ())[1:] == (position,) for n, position in self._direct_uses(name))

    def component(self, name: str) -> str:
        """Name the component that uses a stored tensor; if several do, the first in the graph."""
        for scope in (*self._scopes(name), name):
            for pattern, component in _SCOPES:
                if pattern.search(scope):
                    return component
        return "rest"

    def _direct_uses(self, name: str) -> Iterator[tuple[NodeProto, int]]:
        for node, position in self.uses.get(name, ()):
            if node.op_type == "Identity":  # The exporter shares equal tensors in this way.
                yield from self._direct_uses(node.output[0])
            else:
                yield node, position

    def _scopes(self, name: str) -> Iterator[str]:
        for node, _ in self.uses.get(name, ()):
            if node.op_type in _PASSED_THROUGH or not node.name:
                for output in node.output:
                    yield from self._scopes(output)
            else:
                yield node.name


def _tensor_bytes(tensor: TensorProto) -> int:
    external = 0
    if uses_external_data(tensor):
        external = prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(tensor.ByteSize()) + external
