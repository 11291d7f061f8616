"""The target that every runtime loads: the ONNX graph in full precision."""

from __future__ import annotations

from pathlib import Path

from edgemin_hf.export.base import TrainedModel
from edgemin_hf.export.fidelity import check_fidelity
from edgemin_hf.export.manifest import ManifestEntry
from edgemin_hf.export.onnx_graph import onnx_entry, write_graph

FP32_GRAPH = "onnx/model.onnx"


class Fp32Target:
    """Write `onnx/model.onnx`."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the graph; see `Target`."""
        graph = folder / FP32_GRAPH
        write_graph(trained.plain, graph, trained.tokenizer)
        fidelity = check_fidelity(trained.plain, graph, trained.tokenizer, trained.texts, trained.max_length)
        return (onnx_entry(folder, FP32_GRAPH, "fp32", trained.tokenizer, fidelity),)
