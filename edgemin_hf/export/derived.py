"""Targets that are made of a graph already written, the quantised one or else that in full precision.

One takes inputs of a single shape, as accelerators such as NPUs want; the other is OpenVINO's own format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from edgemin_hf.export.base import TrainedModel
from edgemin_hf.export.fidelity import FidelityError
from edgemin_hf.export.manifest import ManifestEntry, Output, size_of
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_graph import onnx_entry
from edgemin_hf.export.onnx_quantized import QUANTIZED_GRAPHS
from edgemin_hf.export.openvino_graph import OpenVinoGraph
from edgemin_hf.export.outputs import TEXTS, inputs_of_each, rounded
from edgemin_hf.quantization.integer import quantized_weights
from edgemin_hf.runtime.graph import Arrays, Graph
from edgemin_hf.runtime.verification import LONGEST, limit_of, relative_difference
from edgemin_hf.utils.content import digest_of

OPENVINO_GRAPH = "openvino/openvino_model.xml"
"""Where Optimum Intel and sentence-transformers look for it."""
Run = Callable[[Arrays], NDArray[np.float32]]
"""Returns what a head gives, (batch, width) or (batch, length, width)."""


class FixedShapeTarget:
    """Write a graph that takes one shape alone, such as `onnx/model_quantized_1x128.onnx`, where that is asked for."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Write the graph; see `Target`."""
        if trained.fixed_shape is None:
            return ()
        source = _source(trained, folder)
        batch, length = trained.fixed_shape
        file = fixed_file(source.file, trained.fixed_shape)
        # What lies beside a graph above 2 GB serves both.
        graph = onnx.load(folder / source.file, load_external_data=False)
        fix_shape(graph, batch, length)
        onnx.save(graph, folder / file)
        pad = int(trained.model.config.pad_token_id or 0)
        fixed = Graph(folder / file)

        def run(inputs: Arrays) -> NDArray[np.float32]:
            return fixed.run(_padded(fixed.feed(inputs), batch, length, pad))

        outputs = _checked(trained, folder, source, file, run, min(length, LONGEST))
        return (_entry(folder, replace(source, file=file, shape=trained.fixed_shape, outputs=outputs)),)


class OpenVinoTarget:
    """Write `openvino/openvino_model.xml` with its weights, where that is asked for; needs the package openvino."""

    def write(self, trained: TrainedModel, folder: Path) -> tuple[ManifestEntry, ...]:
        """Convert the graph; see `Target`."""
        if not trained.openvino:
            return ()
        import openvino

        source = _source(trained, folder)
        (folder / OPENVINO_GRAPH).parent.mkdir()
        openvino.save_model(openvino.convert_model(folder / source.file), folder / OPENVINO_GRAPH, False)  # not in fp16
        graph = OpenVinoGraph(folder / OPENVINO_GRAPH)
        outputs = _checked(
            trained, folder, source, OPENVINO_GRAPH, lambda inputs: graph.run(graph.feed(inputs)), LONGEST
        )
        weights = Path(OPENVINO_GRAPH).with_suffix(".bin").as_posix()
        made = replace(source, file=OPENVINO_GRAPH, runtime="openvino", external_data=(weights,), outputs=outputs)
        return (_entry(folder, replace(made, opset=None, ir_version=None, min_runtime=None)),)


def fixed_file(file: str, shape: tuple[int, int]) -> str:
    """Return the file of the graph of one shape, by that of the first: "onnx/model_q4_1x128.onnx"."""
    return file.replace(".onnx", f"_{shape[0]}x{shape[1]}.onnx")


def fix_shape(graph: ModelProto, batch: int, length: int) -> None:
    """Give the inputs and outputs of a graph fixed numbers of texts and tokens, in place."""
    sizes = {"batch_size": batch, "sequence_length": length}
    for value in (*graph.graph.input, *graph.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]


def _source(trained: TrainedModel, folder: Path) -> ManifestEntry:
    """Return the entry of the graph that another is made of."""
    precision = quantized_weights(trained.model)
    file = FP32_GRAPH if precision is None else QUANTIZED_GRAPHS[precision]
    return onnx_entry(folder, file, precision or "fp32", trained.tokenizer)


def _entry(folder: Path, entry: ManifestEntry) -> ManifestEntry:
    """Return an entry with the size and the hash of its files."""
    paths = [folder / file for file in entry.files]
    return replace(entry, bytes=size_of(paths), sha256=digest_of(paths))


def _checked(
    trained: TrainedModel, folder: Path, source: ManifestEntry, file: str, run: Run, longest: int
) -> tuple[Output, ...]:
    """Compare what is made with the graph that it is made of, which was compared with the model; return its outputs."""
    graph, limit = Graph(folder / source.file), limit_of(source.precision)
    outputs = []
    for inputs in inputs_of_each(trained.tokenizer, TEXTS, longest):
        expected = graph.run(graph.feed(inputs))
        found = run(inputs)[:1]
        if found.ndim == 3:
            found = found[:, : expected.shape[1]]
        error = relative_difference(found, expected)
        if error > limit:
            raise FidelityError(f"{file} differs from {source.file} by {error:.2e} of its outputs; allowed: {limit:g}")
        outputs.append(rounded(found))
    return tuple(outputs) if source.outputs else ()


def _padded(feed: Mapping[str, NDArray[np.int64]], batch: int, length: int, pad: int) -> dict[str, NDArray[np.int64]]:
    """Fill one text up to a shape: padding to its right, and it again instead of the other texts."""
    filled = {}
    for name, array in feed.items():
        rows = np.full((batch, length), pad if name == "input_ids" else 0, np.int64)
        rows[:, : array.shape[1]] = array
        filled[name] = rows
    return filled
