"""One table for the words that a model reads and those that it predicts, where its graph would hold two.

A masked language model's decoder is tied to its embeddings. The exporter folds the transposition of the one into a
tensor of its own, and packs INT4 in another shape; runtimes fold both again when they load a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_READS = ("Gather", "GatherBlockQuantized")
"""Operators whose first input may be a table."""


def share_tables(model: ModelProto) -> ModelProto:
    """Store what is a table of the same graph, transposed or in another shape, as a node that makes it of the table.

    Args:
        model: A graph with its tensors in memory; it is changed.

    Returns:
        The same graph.
    """
    graph = model.graph
    read = {node.input[0] for node in graph.node if node.op_type in _READS}
    # One number a row are the scales of a table.
    tables = [one for one in graph.initializer if one.name in read and len(one.dims) == 2 and one.dims[1] > 1]
    names = {table.name for table in tables}  # which stay: of two alike each could be made of the other
    made, copies = list[NodeProto](), set[str]()
    for table in tables:
        nodes = list(_made_of(table, [one for one in graph.initializer if one.name not in names | copies]))
        made += nodes
        copies.update(output for node in nodes for output in node.output)
    kept = [tensor for tensor in graph.initializer if tensor.name not in copies]
    if copies:
        nodes = [*made, *graph.node]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(nodes)
    return model


def _made_of(table: TensorProto, tensors: Iterable[TensorProto]) -> Iterator[NodeProto]:
    """Yield the nodes that make other tensors of a graph of a table, those that it holds a second time."""
    values: NDArray[np.generic] = numpy_helper.to_array(table)
    for tensor in tensors:
        if tensor.data_type != table.data_type or np.prod(tensor.dims) != values.size:
            continue
        other = numpy_helper.to_array(tensor)
        if other.shape == values.T.shape and np.array_equal(other, values.T):
            yield helper.make_node("Transpose", [table.name], [tensor.name], f"{tensor.name}/Transpose", perm=[1, 0])
        elif other.shape != values.shape and np.array_equal(other.ravel(), values.ravel()):
            shape = numpy_helper.from_array(np.array(other.shape, dtype=np.int64))
            yield helper.make_node("Constant", [], [f"{tensor.name}/shape"], f"{tensor.name}/Constant", value=shape)
            yield helper.make_node(
                "Reshape", [table.name, f"{tensor.name}/shape"], [tensor.name], f"{tensor.name}/Reshape"
            )
