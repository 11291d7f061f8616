"""Post-training quantisation of a graph by ONNX Runtime, as anybody has it in a minute: the baselines.

The settings are those of Optimum's preset `AutoQuantizationConfig.avx512_vnni`, weights by channel: what ONNX Runtime
does by default differs in which products it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization import CalibrationDataReader, QuantType
from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.exporter import quiet_exporter
from edgemin_hf.export.outputs import inputs_of_each
from edgemin_hf.modeling.tokenizers import fitted
from edgemin_hf.runtime.graph import graph_feed

DYNAMIC_OPERATORS, STATIC_OPERATORS = tuple(IntegerOpsRegistry), tuple(QDQRegistry)
"""What the preset quantises."""


def quantize_dynamic(graph: Path, output: Path) -> None:
    """Quantise a float graph: dynamic INT8, of linear layers, attention's two products and embeddings.

    Weights are int8 by channel; activations are uint8 by tensor, in the range that they have in each pass.

    Args:
        graph: An fp32 ONNX file, such as `write_graph` writes.
        output: The file to write.
    """
    # By its default ONNX Runtime leaves out products of two activations, and subgraphs (DeBERTa has some).
    options = {"MatMulConstBOnly": False, "EnableSubgraph": _has_subgraphs(graph)}
    with quiet_exporter():
        quantization.quantize_dynamic(
            graph,
            output,
            op_types_to_quantize=list(DYNAMIC_OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options=options,
        )


def quantize_static(
    graph: Path, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, texts: Sequence[Text], output: Path
) -> None:
    """Quantise a float graph: static INT8, min-max ranges.

    Weights are int8 by channel. Activations are uint8 by tensor, in the range that they have on `texts`, wherever the
    preset's operators read them: in linear layers, attention's two products, LayerNorms and embeddings.

    Args:
        graph: An fp32 ONNX file, such as `export_baseline` writes.
        tokenizer: The model's tokenizer.
        config: The model's configuration.
        texts: Texts, or pairs of texts, to calibrate on, cut after 128 tokens, or the model's positions; nothing of
            them is padded.
        output: The file to write.

    Raises:
        ValueError: If there are no texts.
    """
    if not texts:
        raise ValueError("texts: none; allowed: 1 or more, which the ranges of the activations are taken from")
    names = [value.name for value in onnx.load(graph, load_external_data=False).graph.input]
    feeds = [graph_feed(names, inputs) for inputs in inputs_of_each(fitted(tokenizer, config), texts)]
    output.parent.mkdir(parents=True, exist_ok=True)
    with quiet_exporter():
        quantization.quantize_static(
            graph,
            output,
            _Feeds(feeds),
            op_types_to_quantize=list(STATIC_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"QDQOpTypePerChannelSupportToAxis": {"MatMul": 1}},
        )


def _has_subgraphs(graph: Path) -> bool:
    return any(node.op_type == "If" for node in onnx.load(graph, load_external_data=False).graph.node)


class _Feeds(CalibrationDataReader):
    """Give ready inputs one after the other."""

    def __init__(self, feeds: Iterable[dict[str, NDArray[np.int64]]]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.int64]]] = iter(feeds)

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        """Return the next inputs; None after the last."""
        return next(self._feeds, None)
