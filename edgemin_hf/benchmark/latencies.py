"""All latencies of a benchmark: of graphs alone, of whole calls, and of these by the length of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgemin_hf.benchmark.by_length import latency_by_length
from edgemin_hf.benchmark.measure import ModelFile, measure_latency
from edgemin_hf.benchmark.rows import LengthLatency, Row
from edgemin_hf.benchmark.runners import Inputs, load_runner
from edgemin_hf.benchmark.whole_call import PipelineMaker, runs, whole_calls
from edgemin_hf.data.tables import Text
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.runtime.loading import load


@dataclass(frozen=True)
class Asked:
    """What is measured, and how.

    Attributes:
        files: The file of each row.
        inputs: The texts as "student" and "teacher" read them.
        artefact: The student's folder.
        texts: The texts of whole calls.
        head: The `AutoModel...` class that knows the models' head.
        threads: Threads of a pass.
        rounds: Counted rounds over the texts.
        pipeline: Makes whole calls through Optimum's pipeline, where it is installed.
    """

    files: Mapping[Row, ModelFile]
    inputs: Mapping[str, Sequence[Inputs]]
    artefact: Path
    texts: Sequence[Text]
    head: AutoClass
    threads: int
    rounds: int
    pipeline: PipelineMaker | None


@dataclass(frozen=True)
class Latencies:
    """What was measured, in milliseconds.

    Attributes:
        passes: Of each file's forward passes (rounds * texts,).
        calls: Of whole calls, as of `whole_calls`.
        by_length: Of whole calls by the length of the text; none of what the runtime can't run.
    """

    passes: Mapping[Row, NDArray[np.float64]]
    calls: Mapping[Row, NDArray[np.float64]]
    by_length: tuple[LengthLatency, ...]


def measure_latencies(asked: Asked) -> Latencies:
    """Measure; PyTorch has as many threads afterwards as before."""
    threads = torch.get_num_threads()
    try:
        runners = {row: load_runner(row[1], file.path, asked.threads, asked.head) for row, file in asked.files.items()}
        passes = measure_latency(runners, {row: asked.inputs[row[0]] for row in runners}, asked.rounds)
        calls = whole_calls(asked.artefact, asked.texts, asked.threads, asked.rounds, asked.pipeline)
        if not runs(asked.artefact):
            return Latencies(passes, calls, ())
        model = load(asked.artefact, threads=asked.threads)
        return Latencies(passes, calls, latency_by_length(model, asked.texts, asked.rounds))
    finally:
        torch.set_num_threads(threads)
