"""Tables of packed INT4 rows as one node of ONNX Runtime's own, which reads and scales rows in one go: from 1.23 on."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgemin_hf.export.fused_products import OWN_DOMAIN, add_domain
from edgemin_hf.export.graph_reader import GraphReader, replace_nodes

_SMALLEST = 16
"""Least numbers of a group that the node takes."""
_CHAIN = ("Unsqueeze", "Concat", "Cast", "Sub", "Reshape", "Mul", "Reshape")
"""What follows the upper halves of bytes in `edgemin_hf.quantization.packed`."""


def fuse_tables(model: ModelProto) -> ModelProto:
    """Write each reading of a packed table as one node.

    Args:
        model: A graph as it is exported; it is changed.

    Returns:
        The same graph.
    """
    reader = GraphReader(model.graph)
    found = {node.output[0]: node for shift in model.graph.node if (node := _table(model, reader, shift)) is not None}
    if found:
        replace_nodes(model.graph, [found.get(node.output[0], node) for node in model.graph.node])
        add_domain(model)
    return model


def _table(model: ModelProto, reader: GraphReader, shift: NodeProto) -> NodeProto | None:
    """Return the one node for a table whose bytes are shifted here; None where there is none that can be written so."""
    above = reader.made_by(shift.input[0], "BitwiseAnd") if shift.op_type == "BitShift" else None
    read = None if above is None else reader.made_by(above.input[0], "Gather")
    last, scaled = shift, None
    for op_type in _CHAIN:
        following = reader.reader(last.output[0], op_type)
        if read is None or following is None:
            return None
        last, scaled = following, following if op_type == "Mul" else scaled
    gathered = None if scaled is None else reader.made_by(scaled.input[1], "Gather")
    table, scales = (None if node is None else reader.constant(node.input[0]) for node in (read, gathered))
    if read is None or gathered is None or table is None or scales is None:
        return None
    rows, groups = scales.shape[:2]
    size = 2 * table.shape[1] // groups
    if size < _SMALLEST or size & (size - 1):
        return None
    name = f"{gathered.input[0]}/rows"
    model.graph.initializer.append(numpy_helper.from_array(scales.reshape(rows, groups), name))
    form = {"bits": 4, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    inputs, scope = [read.input[0], read.input[1], name], last.name.rpartition("/")[0]
    return helper.make_node(
        "GatherBlockQuantized", inputs, last.output, f"{scope}/GatherBlockQuantized", domain=OWN_DOMAIN, **form
    )
