"""Write ONNX graphs, in fewer nodes where that is wanted, and tell what a manifest says of one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.export.exporter import export_graph
from edgemin_hf.export.fused_attention import fuse_attention
from edgemin_hf.export.fused_products import fuse_products
from edgemin_hf.export.fused_tables import fuse_tables
from edgemin_hf.export.graph import count_parameters, external_data
from edgemin_hf.export.manifest import Fidelity, ManifestEntry, size_of
from edgemin_hf.export.outputs import onnx_outputs
from edgemin_hf.export.tied_tables import share_tables
from edgemin_hf.utils.content import digest_of

_FUSED = frozenset({"Attention", "MatMulIntegerToFloat", "GatherBlockQuantized"})


def write_graph(
    model: PreTrainedModel,
    path: Path,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    tied: bool = True,
) -> None:
    """Write the graph of a model as it stands, unchecked.

    Args:
        model: What `plain_copy` or `integer_copy` made, or a model like it.
        path: The file, in a folder of its own: what the exporter leaves behind on the way is put beside that folder.
        tokenizer: Its tokenizer, where the graph must not want what that does not give.
        tied: Whether what is tied to a table is stored once. Quantisers of graphs want two.
    """
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        export_graph(model, Path(scratch) / "model.onnx", tokenizer)
        graph = onnx.load(Path(scratch) / "model.onnx")  # with its external data, which a graph above 2 GB has
        graph = share_tables(graph) if tied else graph
        large = _is_large(graph)
        onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}_data" if large else None)


def write_fused(source: Path, path: Path) -> bool:
    """Write a graph with attention, integer products with their biases, and packed tables as one node each.

    ONNX Runtime knows these nodes from 1.24 on.

    Args:
        source: A graph that `write_graph` wrote.
        path: The file; it may be `source`.

    Returns:
        Whether there was anything to write so; else, and of a graph above 2 GB, nothing is written.
    """
    if external_data(source):  # protobuf hands ONNX's converter nothing above 2 GB
        return False
    graph = fuse_tables(fuse_products(fuse_attention(onnx.load(source))))
    if not any(node.op_type in _FUSED for node in graph.graph.node):
        return False
    onnx.save(graph, path)
    return True


def _is_large(graph: ModelProto) -> bool:
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


def _opset(model: ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def _min_runtime(model: ModelProto) -> str:
    """Return the least version of ONNX Runtime that loads a graph of ours; the oldest that was tried is 1.17.

    That loads graphs of opset 18, with MatMulNBits and MatMulIntegerToFloat. Packed bytes in GatherBlockQuantized came
    with 1.23, all operators of opset 23 with 1.24.
    """
    if _opset(model) == 23:
        return "1.24"
    return "1.23" if any(node.op_type == "GatherBlockQuantized" for node in model.graph.node) else "1.17"
