"""What the benchmarks share: models and inputs of the relation loss, timing in turns, the profile of a graph."""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedModel

from edgemin_hf.modeling.encoder import Activation
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.modeling.length_groups import record_by_length
from edgemin_hf.runtime.sessions import session_options

TEACHER_LAYER = 12
RELATION_HEADS = 48
PASSES = 5
"""Of a graph in a round: the first finds the caches full of another graph's weights."""
CASES = {"16 x 128": [128] * 16, "16 of 10..128": [10 + round(118 * i / 15) for i in range(16)], "4 x 512": [512] * 4}
"""Lengths of the examples of a batch; shorter ones are padded to the longest."""


def teacher_and_student() -> tuple[BertModel, BertModel]:
    """Build a frozen teacher of BERT-base's shape and a student of 6 x 384 with 12 heads, both with random weights."""
    torch.manual_seed(0)
    teacher = BertModel(BertConfig(architectures=["BertForMaskedLM"])).eval().requires_grad_(False)
    student = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )
    return teacher, student


def inputs_of(lengths: Sequence[int]) -> dict[str, Tensor]:
    """Build random token ids of these lengths, padded on the right to the longest."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(1000, 30000, mask.shape) * mask, "attention_mask": mask}


def recorded(model: PreTrainedModel, activations: Collection[Activation], inputs: Mapping[str, Tensor]) -> Recording:
    """Record tensors as the trainer does."""
    return record_by_length(model, activations, inputs)


def in_turns(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Return the median seconds of each function; they take turns, after a round that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for round_number in range(repeats + 1):
        for function, kept in zip(functions, times, strict=True):
            seconds = timed(function)
            if round_number:
                kept.append(seconds)
    return [statistics.median(kept) for kept in times]


def timed(function: Callable[[], object]) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def write_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Write values as JSON, where there is a path."""
    if path is not None:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def profile(graph: Path, inputs: Mapping[str, np.ndarray], threads: int, passes: int) -> Counter[str]:
    """Return the milliseconds of a pass by kind of operator, as ONNX Runtime's own profiler times them."""
    settings = session_options(threads)
    settings.enable_profiling = True
    settings.profile_file_prefix = str(graph.with_suffix(""))
    session = onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
    given = {node.name: inputs[node.name] for node in session.get_inputs()}
    for _ in range(passes):
        session.run(None, given)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    of_node: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            of_node[event["args"]["op_name"], event["name"]].append(event["dur"] / 1000)
    found: Counter[str] = Counter()
    for (op, _), ms in of_node.items():
        found[op] += statistics.median(ms)
    return found
