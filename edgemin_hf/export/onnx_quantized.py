"""The targets that quantisation is for: the ONNX graph of a model as it was trained to compute, in INT8 or INT4.

One is written so that any runtime loads it, and where it is asked for a second one for new versions of ONNX Runtime
alone, which computes the same in fewer nodes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgemin_hf.export.base import TrainedModel
from edgemin_hf.export.fidelity import check_fidelity
from edgemin_hf.export.manifest import ManifestEntry
from edgemin_hf.export.onnx_graph import onnx_entry, write_fused, write_graph
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
        write_graph(integer_copy(trained.model), folder / file, trained.tokenizer)
        write_ort_config(folder, folder / file)
        return (_checked(trained, folder, file, precision),)


class FusedTarget:
    """Write `onnx/model_quantized_fused.onnx` or `onnx/model_q4_fused.onnx`, where that is asked for."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the graph, of a quantised one that has anything to fuse; see `Target`."""
        precision = quantized_weights(trained.model)
        if precision is None or not trained.fused_attention:
            return ()
        source = QUANTIZED_GRAPHS[precision]
        file = fused_file(source)
        if not write_fused(folder / source, folder / file):
            return ()
        return (replace(_checked(trained, folder, file, precision), fused=True),)


def fused_file(file: str) -> str:
    """Return the file of the second graph, by that of the first: "onnx/model_q4_fused.onnx"."""
    return file.replace(".onnx", "_fused.onnx")


def _checked(trained: TrainedModel, folder: Path, file: str, precision: str) -> ManifestEntry:
    """Check a quantised graph; return its entry."""
    fidelity = check_fidelity(trained.model, folder / file, trained.tokenizer, trained.texts, trained.max_length)
    return onnx_entry(folder, file, precision, trained.tokenizer, fidelity)
