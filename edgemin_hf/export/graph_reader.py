"""Find one's way in a graph, and write it anew: what rewriting a graph has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper


class GraphReader:
    """Who makes and who reads each value of a graph.

    Args:
        graph: The graph.

    Attributes:
        maker: The node that makes a value, by the value's name.
        readers: The nodes that read it, likewise.
        stored: The stored tensor of a value that no node makes, likewise.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.maker = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for value in node.input:
                self.readers.setdefault(value, []).append(node)
        self.stored = {tensor.name: tensor for tensor in graph.initializer}

    def made_by(self, value: str, op_type: str) -> NodeProto | None:
        """Return the node that makes a value, if it is of this type."""
        node = self.maker.get(value)
        return node if node is not None and node.op_type == op_type else None

    def reader(self, value: str, op_type: str) -> NodeProto | None:
        """Return the only node that reads a value, if it is of this type; those that ask its shape don't count."""
        readers = [node for node in self.readers.get(value, []) if node.op_type != "Shape"]
        return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None

    def tensor(self, value: str) -> TensorProto | None:
        """Return the tensor of a value that is constant; None of another."""
        node = self.maker.get(value)
        if node is not None and node.op_type == "Identity":
            return self.tensor(node.input[0])
        return node.attribute[0].t if node is not None and node.op_type == "Constant" else self.stored.get(value)

    def constant(self, value: str) -> NDArray[np.float32 | np.int64] | None:
        """Return what a constant value is; None of another."""
        tensor = self.tensor(value)
        if tensor is None:
            return None
        constant: NDArray[np.float32 | np.int64] = numpy_helper.to_array(tensor)
        return constant


def _read_by(node: NodeProto) -> Iterator[str]:
    """Yield the values that a node reads, or a node of a graph inside of it, such as a branch of an If."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read_by(inner)
        yield from (value.name for value in attribute.g.output)


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Put nodes instead of a graph's own, and keep what of nodes and stored tensors is read."""
    read = {value.name for value in graph.output}
    kept: list[NodeProto] = []
    for node in reversed(list(nodes)):
        if read & set(node.output):
            read |= set(_read_by(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(stored)
    del graph.value_info[:]  # shapes of values that may be gone
