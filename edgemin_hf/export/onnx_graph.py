"""Write ONNX graphs, and tell what a manifest says of one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.export.exporter import export_graph
from edgemin_hf.export.fused_attention import fuse_attention
from edgemin_hf.export.graph import count_parameters, external_data
from edgemin_hf.export.manifest import Fidelity, ManifestEntry, size_of
from edgemin_hf.export.outputs import onnx_outputs
from edgemin_hf.export.tied_tables import share_tables
from edgemin_hf.utils.content import digest_of


def write_graph(
    model: PreTrainedModel,
    path: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    fused: bool = False,
    tied: bool = True,
) -> None:
    """Write the graph of a model as it stands, unchecked.

    Args:
        model: What `plain_copy` or `integer_copy` made, or a model like it.
        path: The file, in a folder of its own: what the exporter leaves behind on the way is put beside that folder.
        tokenizer: Its tokenizer, where the graph must not want what that does not give.
        fused: Whether attention becomes one node, which ONNX Runtime knows from 1.24 on; else any runtime will do. In a
            graph above 2 GB it stays as it is.
        tied: Whether what is tied to a table is stored once. Quantisers of graphs want two.
    """
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        export_graph(model, Path(scratch) / "model.onnx", tokenizer)
        graph = onnx.load(Path(scratch) / "model.onnx")  # with its external data, which a graph above 2 GB has
        graph = share_tables(graph) if tied else graph
        large = _is_large(graph)
        graph = fuse_attention(graph) if fused and not large else graph
        onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}_data" if large else None)


def _is_large(graph: onnx.ModelProto) -> bool:
    """Tell a graph that one file can't hold: protobuf measures nothing above 2 GB, and converts nothing."""
    stored = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    return bool(stored >= 0.99 * onnx.checker.MAXIMUM_PROTOBUF)  # nodes and names take the rest


def onnx_entry(
    folder: Path,
    file: str,
    precision: str,
    tokenizer: PreTrainedTokenizerBase,
    fidelity: Fidelity | None = None,
) -> ManifestEntry:
    """Read off a graph for ONNX Runtime what the manifest says of it.

    Args:
        folder: The artefact's folder.
        file: The ONNX file, relative to it.
        precision: What its linear layers are: "fp32", "int8" or "int4".
        tokenizer: The model's tokenizer.
        fidelity: Outcome of its check, if it was checked.

    Returns:
        The entry.
    """
    graph = folder / file
    model = onnx.load(graph, load_external_data=False)
    beside = tuple((Path(file).parent / name).as_posix() for name in external_data(graph))
    paths = [folder / name for name in (file, *beside)]
    return ManifestEntry(
        file=file,
        runtime="onnxruntime",
        precision=precision,
        bytes=size_of(paths),
        sha256=digest_of(paths),
        parameters=count_parameters(graph),
        external_data=beside,
        opset=_opset(model),
        ir_version=model.ir_version,
        min_runtime=_min_runtime(model),
        fidelity=fidelity,
        outputs=onnx_outputs(graph, tokenizer),
    )


def _opset(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def _min_runtime(model: onnx.ModelProto) -> str | None:
    """Return the least version of ONNX Runtime that was seen to load graphs of this opset; None where none was tried.

    1.23 refuses opset 23, 1.24 loads it. Graphs of opset 18 with ONNX's own operators load from 1.17 on, the oldest
    that was tried. Below 1.24 no graph with ONNX Runtime's own operators (com.microsoft, for 4 bits) was tried.
    """
    if _opset(model) == 23:
        return "1.24"
    own = any(node.domain not in ("", "ai.onnx") for node in model.graph.node)
    return "1.17" if _opset(model) <= 18 and not own else None
