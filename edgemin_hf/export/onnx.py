"""Export to ONNX: full precision and, after quantisation-aware training, INT8 or INT4, all checked against PyTorch."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from optimum.exporters.onnx import main_export, onnx_export_from_model
from optimum.exporters.tasks import TasksManager
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.fidelity import SAMPLE_TEXTS, Fidelity, check_fidelity
from edgemin_hf.export.fused_attention import fuse_attention
from edgemin_hf.export.ort_config import write_ort_config
from edgemin_hf.modeling.families import FAMILIES
from edgemin_hf.quantization.integer import integer_copy, plain_copy, quantized_weights
from edgemin_hf.utils.atomic_files import atomic_folder

FP32_GRAPH = "onnx/model.onnx"
INT8_GRAPH = "onnx/model_quantized.onnx"
INT4_GRAPH = "onnx/model_q4.onnx"
QUANTIZED_GRAPHS = {"int8": INT8_GRAPH, "int4": INT4_GRAPH}
"""File of the quantised graph, by the precision of its linear layers; a model has one of them."""


@dataclass(frozen=True)
class Export:
    """What an export made.

    Attributes:
        folder: The folder, with the PyTorch model, its tokenizer and the graphs.
        fp32: Outcome of the check of `onnx/model.onnx`.
        int8: Outcome of the check of `onnx/model_quantized.onnx`; None where the linear layers are not INT8.
        int4: Outcome of the check of `onnx/model_q4.onnx`; None where they are not INT4.
    """

    folder: Path
    fp32: Fidelity
    int8: Fidelity | None = None
    int4: Fidelity | None = None


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    output: str | Path,
    *,
    texts: Sequence[Text] = SAMPLE_TEXTS,
) -> Export:
    """Export a model to a folder that Optimum, ONNX Runtime and `transformers` load.

    The folder holds `config.json`, the tokenizer, `model.safetensors` (full precision), `onnx/model.onnx` and, for a
    model after quantisation-aware training, `onnx/model_quantized.onnx` where its linear layers are INT8, or
    `onnx/model_q4.onnx` where they are INT4, with Optimum's `ort_config.json`; embeddings are as they were trained.
    Batch and length are dynamic. A folder that is there already is replaced once the new one is complete and checked.

    Args:
        model: A plain model, or one with the fake-quantised modules of `DistillationTrainer`; it stays as it is.
        tokenizer: Its tokenizer.
        output: The folder to write.
        texts: Real texts, or pairs of texts, on which the graphs are checked against the PyTorch model.

    Returns:
        What was made and how exactly it computes what the model computes.

    Raises:
        FidelityError: If a graph differs from the PyTorch model by more than rounding; nothing is written then.
        ValueError: If `output` holds something else than an export, or Optimum does not know the model's family.
    """
    output = Path(output).resolve()
    if output.exists() and any(output.iterdir()) and not (output / FP32_GRAPH).is_file():
        raise ValueError(f"output: {output}, which holds other things; allowed: a new folder, or one of an export")
    check_exportable(model.config)
    precision = quantized_weights(model)
    plain = plain_copy(model)
    with atomic_folder(output) as folder:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_graph(plain, folder / FP32_GRAPH)
        fp32 = check_fidelity(plain, folder / FP32_GRAPH, tokenizer, texts)
        checks = {}
        if precision is not None:
            graph = folder / QUANTIZED_GRAPHS[precision]
            write_graph(integer_copy(model), graph, fused=True)
            checks[precision] = check_fidelity(model, graph, tokenizer, texts)
            write_ort_config(folder, graph)
    return Export(output, fp32, **checks)


def check_exportable(config: PretrainedConfig) -> None:
    """Check that Optimum's exporter knows a family.

    Raises:
        ValueError: If not, naming it.
    """
    if not _is_exportable(config.model_type):
        allowed = ", ".join(sorted(filter(_is_exportable, FAMILIES)))
        raise ValueError(f"model type {config.model_type!r}; allowed: {allowed}, which Optimum exports")


def _is_exportable(model_type: str) -> bool:
    # Asked one by one: Optimum's list for a task stops at the families that Optimum Intel adds, which are not for ONNX.
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
    except KeyError:
        return False
    return "text-classification" in tasks


def export_baseline(model: str | Path, output: str | Path, task: str = "text-classification") -> None:
    """Export a model as anybody would in a minute: Optimum's fp32 graph and its dynamic INT8 (AVX512-VNNI preset).

    Args:
        model: Folder of a plain model with its tokenizer.
        output: Folder for `onnx/model.onnx` and `onnx/model_quantized.onnx`.
        task: Optimum's name of the task.
    """
    with atomic_folder(Path(output)) as folder, _quiet_exporter():
        graphs = (folder / FP32_GRAPH).parent
        main_export(str(model), graphs, task=task, do_validation=False)
        preset = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        ORTQuantizer.from_pretrained(graphs).quantize(quantization_config=preset, save_dir=graphs)


def write_graph(model: PreTrainedModel, path: Path, *, fused: bool = False) -> None:
    """Write the graph of a model as it stands, unchecked.

    Args:
        model: What `plain_copy` or `integer_copy` made, or a model like it.
        path: The file, in a folder of its own: what the exporter leaves behind on the way is put beside that folder.
        fused: Whether attention becomes one node, which ONNX Runtime knows from 1.24 on; else any runtime will do.
    """
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch, _quiet_exporter():
        onnx_export_from_model(model, scratch, do_validation=False)
        graph = onnx.load(Path(scratch) / "model.onnx")  # with its external data, which a graph above 2 GB has
        graph = fuse_attention(graph) if fused else graph
        large = graph.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
        onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}_data" if large else None)


class _quiet_exporter(warnings.catch_warnings):  # noqa: N801 - used like the context manager that it extends
    """Silence the tracer's warnings about shapes that are constant on purpose, and the exporters' chatter."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        for name in ("optimum", "root"):
            logging.getLogger(name).setLevel(logging.ERROR)
