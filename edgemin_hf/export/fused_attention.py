"""Attention as one node: the operator that ONNX has for it since opset 23, instead of the dozen it is spelt with.

ONNX Runtime then takes queries, keys and values as the projections leave them, and writes no transposed copies: 7 to
13% of an INT8 graph's time. What does not look like attention stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper, version_converter

from edgemin_hf.export.graph_reader import GraphReader, replace_nodes

_OPSET = 23


class _Attention(NamedTuple):
    """softmax(Q K^T scale + masks) V, by heads; the names of its values (batch, length, width) and of its masks."""

    query: str
    key: str
    value: str
    masks: tuple[str, ...]
    scale: float
    heads: int
    output: str


def fuse_attention(model: ModelProto) -> ModelProto:
    """Write each attention of an encoder as ONNX's `Attention`.

    Args:
        model: A graph as it is exported with explicit attention.

    Returns:
        The graph, of opset 23 if there was an attention to write; else `model` itself.
    """
    reader = _AttentionReader(model.graph)
    found = [attention for node in model.graph.node if (attention := reader.attention(node)) is not None]
    if not found:
        return model
    model = version_converter.convert_version(model, _OPSET)
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for([helper.make_opsetid("", _OPSET)]))
    by_output = {attention.output: attention for attention in found}
    masks: dict[tuple[str, ...], str] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        attention = by_output.get(node.output[0])
        nodes += [node] if attention is None else _written(attention, masks)
    replace_nodes(model.graph, nodes)
    return model


def _written(attention: _Attention, masks: dict[tuple[str, ...], str]) -> list[NodeProto]:
    """Return the node, and before it those that make its mask, where no node did so yet."""
    scope = attention.output.rpartition("/")[0]
    nodes = [] if attention.masks in masks else _mask_nodes(attention, f"{scope}/mask")
    mask = masks.setdefault(attention.masks, f"{scope}/mask")
    heads = {"q_num_heads": attention.heads, "kv_num_heads": attention.heads}
    inputs = [attention.query, attention.key, attention.value, mask]
    name = f"{scope}/Attention"
    nodes.append(helper.make_node("Attention", inputs, [attention.output], name, scale=attention.scale, **heads))
    return nodes


def _mask_nodes(attention: _Attention, name: str) -> list[NodeProto]:
    """Add the masks up, and repeat them for every query: ONNX Runtime wants (..., length, length)."""
    ones = numpy_helper.from_array(np.ones(1, np.int64))
    first, *others = attention.masks
    nodes = []
    for index, other in enumerate(others):
        nodes.append(helper.make_node("Add", [first, other], [f"{name}_{index}"], f"{name}/Add_{index}"))
        first = f"{name}_{index}"
    return [
        *nodes,
        helper.make_node("Constant", [], [f"{name}_one"], f"{name}/Constant", value=ones),
        helper.make_node("Shape", [attention.query], [f"{name}_length"], f"{name}/Shape", start=1, end=2),
        helper.make_node("Concat", [f"{name}_length", f"{name}_one"], [f"{name}_shape"], f"{name}/Concat", axis=0),
        helper.make_node("Expand", [first, f"{name}_shape"], [name], f"{name}/Expand"),
    ]


class _AttentionReader(GraphReader):
    """Read attention out of a graph, from its Softmax to both sides."""

    def attention(self, softmax: NodeProto) -> _Attention | None:
        """Return the attention around a Softmax; None where there is none, or one of another form."""
        if softmax.op_type != "Softmax":
            return None
        masks, scores = self._masks_and_scores(softmax.input[0])
        scale, product = self._scale(scores)
        mixed = self.reader(softmax.output[0], "MatMul")
        if not masks or product is None or mixed is None:
            return None
        query = self._heads_of(product.input[0], [0, 2, 1, 3])
        key = self._heads_of(product.input[1], [0, 2, 3, 1])
        value = self._heads_of(mixed.input[1], [0, 2, 1, 3])
        joined = self.reader(mixed.output[0], "Transpose")
        output = None if joined is None else self.reader(joined.output[0], "Reshape")
        if query is None or key is None or value is None or output is None:
            return None
        return _Attention(query[0], key[0], value[0], masks, scale, query[1], output.output[0])

    def _masks_and_scores(self, value: str) -> tuple[tuple[str, ...], str]:
        """Follow the sum of scores and masks down to the scores."""
        node = self.maker.get(value)
        masks: tuple[str, ...] = ()
        while node is not None and node.op_type == "Add":
            value, mask = node.input
            masks = (mask, *masks)
            node = self.maker.get(value)
        return masks, value

    def _scale(self, value: str) -> tuple[float, NodeProto | None]:
        """Return what the product Q K^T is scaled by, and its node."""
        node, scale = self.maker.get(value), 1.0
        if node is not None and node.op_type in ("Div", "Mul"):
            factor = self.constant(node.input[1])
            if factor is None or factor.size != 1:
                return scale, None
            scale = float(factor) if node.op_type == "Mul" else 1 / float(factor)
            node = self.maker.get(node.input[0])
        return scale, node if node is not None and node.op_type == "MatMul" else None

    def _heads_of(self, value: str, order: list[int]) -> tuple[str, int] | None:
        """Return the value (batch, length, width) whose heads these are, and their number."""
        transpose = self.maker.get(value)
        if transpose is None or transpose.op_type != "Transpose" or list(transpose.attribute[0].ints) != order:
            return None
        reshape = self.maker.get(transpose.input[0])
        shape = None if reshape is None or reshape.op_type != "Reshape" else self._shape(reshape.input[1])
        if reshape is None or shape is None:
            return None
        *_, heads, size = shape
        if heads < 1 <= size:  # transformers 5 says how wide a head is, and leaves their number open
            heads = self._width(reshape.input[0]) // size
        return (reshape.input[0], heads) if heads > 0 else None

    def _width(self, value: str) -> int:
        """Return the width of what a linear layer gives, by the bias that it adds; 0 where there is none."""
        node = self.maker.get(value)
        added = [] if node is None or node.op_type != "Add" else [self.constant(name) for name in node.input]
        return next((bias.size for bias in added if bias is not None and bias.ndim == 1), 0)

    def _shape(self, value: str) -> list[int] | None:
        """Return a shape of four numbers, of which one is -1; those that are computed are 0."""
        node, known = self.maker.get(value), self.constant(value)
        if known is None and node is not None and node.op_type == "Concat":
            parts = [self.constant(part) for part in node.input]
            known = np.array([0 if part is None else part.item() for part in parts])
        return known.tolist() if known is not None and known.size == 4 else None
