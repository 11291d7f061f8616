"""How large and how fast the artefact of a recipe will be, guessed from shapes before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import PreTrainedModel

from edgemin_hf.export.derived import OPENVINO_GRAPH, fixed_file
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_quantized import QUANTIZED_GRAPHS, fused_file
from edgemin_hf.modeling.auto_class import new_model
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.quantization.precision import precisions
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import ArtefactEstimate
from edgemin_hf.recipe.schema import StageSettings
from edgemin_hf.recipe.stages.base import Stage, student_before
from edgemin_hf.recipe.stages.prune import Prune
from edgemin_hf.recipe.stages.prune_vocabulary import PruneVocabulary
from edgemin_hf.recipe.stages.quantize import Quantize
from edgemin_hf.sensitivity.quantization import module_bytes
from edgemin_hf.tasks.masked_lm import MaskedLM

_STRUCTURE = 17_000
"""Bytes of a graph's nodes and names for a layer."""
_TIMES = {"fp32": 2.0, "int8": 1.0, "int4": 2.0}
"""How long a pass takes, by the time that its products alone take in fp32; on a processor with VNNI."""


def estimate_artefact(
    context: Context, export: Stage, *, fused: bool, fixed_shape: tuple[int, int] | None, openvino: bool
) -> ArtefactEstimate:
    """Guess what the artefact of a recipe will take.

    Args:
        context: The recipe at work.
        export: The stage that exports it.
        fused: Whether a quantised student gets a second graph.
        fixed_shape: Texts and tokens of a further graph; None where there is none.
        openvino: Whether it is written in OpenVINO's format too.
    """
    before = context.before(export)
    model = _exported(context, export)
    share = _heads_kept(before, shape_of(model.config).num_attention_heads)
    quantize = next((s for s in before if isinstance(s, Quantize)), None)
    modules = {} if quantize is None else precisions(model, quantize)
    group, precision = (32, "fp32") if quantize is None else (quantize.group_size, quantize.weights)
    parameters, weights = _parameters(model, share), list(_weights(model, share))
    structure = _STRUCTURE * model.config.num_hidden_layers
    sizes = {"model.safetensors": 4 * parameters, FP32_GRAPH: 4 * parameters + structure}
    if quantize is not None and precision in QUANTIZED_GRAPHS:
        rest = 4 * (parameters - sum(round(kept * module.weight.numel()) for module, kept in weights))
        stored = sum(kept * module_bytes(module, modules.get(module, "fp32"), group) for module, kept in weights)
        size = round(stored) + rest + structure
        limit = quantize.target_size_mb
        file = QUANTIZED_GRAPHS[precision]
        sizes[file] = size if limit is None else min(size, round(1e6 * limit))
        if fused:
            sizes[fused_file(file)] = sizes[file]
    made_of = QUANTIZED_GRAPHS.get(precision, FP32_GRAPH)
    if fixed_shape is not None:
        sizes[fixed_file(made_of, fixed_shape)] = sizes[made_of]
    if openvino:
        sizes[OPENVINO_GRAPH] = sizes[made_of]
    sizes["tokenizer"] = _tokenizer_bytes(context)
    tokens = ceil(context.estimator.task_text.tokens)
    products = tokens * sum(kept * module.weight.numel() for module, kept in weights if isinstance(module, nn.Linear))
    milliseconds = 1e3 * products / _products_a_second(tokens) * _TIMES[precision]
    return ArtefactEstimate(sizes, precision, tokens, milliseconds, at_most=any(map(_is_open, before)))


def _exported(context: Context, export: Stage) -> PreTrainedModel:
    """Build the model that is exported without weights, but with every head."""
    config, task = unpruned(student_before(export, context)), context.task
    if context.label_ids:
        config.num_labels = len(context.label_ids)
    with torch.device("meta"):
        model = new_model(task.auto_class, config)
    return model.base_model if isinstance(task, MaskedLM) and not task.keep_head else model


def _is_open(stage: StageSettings) -> bool:
    """Return whether how much smaller a stage makes the student is not known before it has run."""
    if isinstance(stage, Prune):
        return stage.has_budget
    return isinstance(stage, PruneVocabulary) or (isinstance(stage, Quantize) and stage.pruning is not None)


def _heads_kept(stages: Sequence[StageSettings], heads: int) -> float:
    """Return which share of the heads stays, which a configuration does not tell."""
    kept = heads
    for stage in stages:
        if isinstance(stage, Prune):
            kept = stage.kept_heads(kept)
    return kept / heads


def _weights(model: PreTrainedModel, kept: float) -> Iterator[tuple[nn.Linear | nn.Embedding, float]]:
    """Yield linear layers and tables, and the share of each that stays when heads go."""
    encoder, names = Encoder(model), {module: name for name, module in model.named_modules()}
    for _, _, module in (*encoder.embeddings(), *encoder.linears()):
        yield module, kept if isinstance(module, nn.Linear) and "att" in names[module] else 1.0


def _parameters(model: PreTrainedModel, kept: float) -> int:
    lost: float = sum((1 - share) * module.weight.numel() for module, share in _weights(model, kept))
    return int(model.num_parameters()) - round(lost)


def _tokenizer_bytes(context: Context) -> int:
    with TemporaryDirectory() as folder:
        context.shapes.tokenizer.save_pretrained(folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _products_a_second(rows: int) -> float:
    """Measure the multiplications and additions a second of products as small as those of a short text, one thread."""
    threads, repeats = torch.get_num_threads(), 50
    torch.set_num_threads(1)
    try:
        left, right = torch.ones(rows, 384), torch.ones(384, 384)
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(repeats):
                torch.mm(left, right)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return repeats * rows * 384 * 384 / best
