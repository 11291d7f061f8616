"""The target that quantisation is for: the ONNX graph of a model as it was trained to compute, in INT8 or INT4."""

from __future__ import annotations

from pathlib import Path

from edgemin_hf.export.base import TrainedModel
from edgemin_hf.export.fidelity import check_fidelity
from edgemin_hf.export.manifest import ManifestEntry
from edgemin_hf.export.onnx_graph import onnx_entry, write_graph
from edgemin_hf.export.ort_config import write_ort_config
from edgemin_hf.quantization.integer import integer_copy, quantized_weights

INT8_GRAPH = "onnx/model_quantized.onnx"
INT4_GRAPH = "onnx/model_q4.onnx"
QUANTIZED_GRAPHS = {"int8": INT8_GRAPH, "int4": INT4_GRAPH}
"""File of the quantised graph, by the precision of most of its linear layers; a model has one of them."""


class QuantizedTarget:
    """Write `onnx/model_quantized.onnx` or `onnx/model_q4.onnx`, and Optimum's `ort_config.json`."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the graph, of a model with fake-quantised modules alone; see `Target`."""
        precision = quantized_weights(trained.model)
        if precision is None:
            return ()
        file = QUANTIZED_GRAPHS[precision]
        write_graph(integer_copy(trained.model), folder / file, trained.tokenizer, fused=True)
        fidelity = check_fidelity(trained.model, folder / file, trained.tokenizer, trained.texts, trained.max_length)
        write_ort_config(folder, folder / file)
        return (onnx_entry(folder, file, precision, trained.tokenizer, fidelity),)
