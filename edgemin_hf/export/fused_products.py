"""Integer products with their biases: a node of ONNX Runtime's own for each linear layer.

It makes that node of the standard form by itself, but leaves the bias an addition of its own: 7% of the time at 15
tokens.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from edgemin_hf.export.graph_reader import GraphReader, replace_nodes

OWN_DOMAIN = "com.microsoft"


def fuse_products(model: ModelProto) -> ModelProto:
    """Write each product of dequantised tensors, with the bias that is added to it, as one node.

    Args:
        model: A graph as it is exported, its integer products in the standard form (QDQ); it is changed.

    Returns:
        The same graph.
    """
    reader = GraphReader(model.graph)
    nodes: list[NodeProto] = []
    written = dict[str, NodeProto]()
    for node in model.graph.node:
        product = _product(reader, node)
        if product is not None:
            written[product.output[0]] = product
        nodes.append(written.get(node.output[0], node))
    if written:
        replace_nodes(model.graph, nodes)
        add_domain(model)
    return model


def add_domain(model: ModelProto) -> None:
    """Say that a graph has operators of ONNX Runtime's own."""
    if all(entry.domain != OWN_DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(OWN_DOMAIN, 1))


def _product(reader: GraphReader, node: NodeProto) -> NodeProto | None:
    """Return the one node for a product and its bias; None where a node is no such product."""
    if node.op_type != "MatMul":
        return None
    inputs, weights = (reader.made_by(value, "DequantizeLinear") for value in node.input)
    add = reader.reader(node.output[0], "Add")
    if inputs is None or weights is None or add is None or reader.tensor(weights.input[0]) is None:
        return None
    bias = next((value for value in add.input if value != node.output[0]), "")
    stored = reader.constant(bias)
    if stored is None or stored.ndim != 1:
        return None
    operands = (inputs.input[0], weights.input[0], inputs.input[1], weights.input[1], inputs.input[2], weights.input[2])
    return helper.make_node("MatMulIntegerToFloat", [*operands, bias], add.output, node.name, domain=OWN_DOMAIN)
