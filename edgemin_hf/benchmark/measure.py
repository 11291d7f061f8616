"""Latency by interleaved rounds, predictions, and the rows of `benchmark.json`."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tqdm import tqdm

from edgemin_hf.benchmark.rows import BenchmarkRow, Latency, Score
from edgemin_hf.benchmark.runners import Inputs, Runner
from edgemin_hf.export.checkpoint import checkpoint_entry
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.runtime.artefact import is_fused
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.utils.cpus import warn_if_busy

Row = tuple[str, str, str]
"""Model ("teacher", "student"), runtime ("pytorch", "onnxruntime", "openvino"), variant ("fp32", "int8-fused")."""

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class ModelFile:
    """A model that can be measured.

    Attributes:
        path: Its file.
        size_bytes: Size on disk, with external data.
        parameters: Number of its parameters.
    """

    path: Path
    size_bytes: int
    parameters: int


def files_of(model: str, folder: Path, checkpoint: Path | None = None) -> dict[Row, ModelFile]:
    """Return the file of each row of a model: all that the manifest of its folder lists.

    Args:
        model: "teacher" or "student".
        folder: Folder with an `edgemin.json`.
        checkpoint: Folder of its checkpoint, whose row comes first, where that lies elsewhere.

    Returns:
        The files.

    Raises:
        ValueError: If the manifest can't be read, or a file is missing or is not the one that it tells.
    """
    manifest = read_manifest(folder)
    manifest.verify_files(folder)
    found = [] if checkpoint is None else [(checkpoint, checkpoint_entry(checkpoint))]
    found += [(folder, entry) for entry in manifest.entries]
    return {
        (model, entry.runtime, entry.variant): ModelFile(place / entry.file, entry.bytes, entry.parameters)
        for place, entry in found
    }


def in_openvino(files: Mapping[Row, ModelFile]) -> dict[Row, ModelFile]:
    """Return the rows that run the graphs of ONNX Runtime's rows in OpenVINO, but for those that there are already.

    Fused graphs are for ONNX Runtime alone.
    """
    return {
        (model, "openvino", precision): file
        for (model, runtime, precision), file in files.items()
        if runtime == "onnxruntime" and (model, "openvino", precision) not in files and not is_fused(precision)
    }


def measure_latency(
    runners: Mapping[Name, Runner], inputs: Mapping[Name, Sequence[Inputs]], rounds: int, progress: str = "Latency"
) -> dict[Name, NDArray[np.float64]]:
    """Time the forward pass of every model on the same texts, one at a time.

    Each round runs all inputs through one model after the other, so that a change of the machine's speed meets all of
    them; a first round warms up and is not counted. Whether other programs are at work is logged as a warning.

    Args:
        runners: The models, by any names.
        inputs: For each model the texts as its tokenizer reads them.
        rounds: Number of counted rounds.
        progress: Title of the progress bar.

    Returns:
        For each model all its times, in milliseconds (rounds * inputs,).

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf.benchmark import PyTorchRunner, measure_latency
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> with TemporaryDirectory() as folder:
        ...     BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
        ...     runner = PyTorchRunner(Path(folder), threads=1)
        >>> texts = [{"input_ids": np.array([[2, 7, 8, 3]])}, {"input_ids": np.array([[2, 9, 3]])}]
        >>> measure_latency({"tiny": runner}, {"tiny": texts}, rounds=3)["tiny"].shape
        (6,)
    """
    warn_if_busy("latencies come out too long")
    times: dict[Name, list[float]] = {row: [] for row in runners}
    prepared = {row: [runner.prepare(one) for one in inputs[row]] for row, runner in runners.items()}
    with tqdm(total=(rounds + 1) * len(runners), desc=progress, unit="pass") as bar:
        for counted in [False] + [True] * rounds:
            for row, runner in runners.items():
                for one in prepared[row]:
                    start = time.perf_counter()
                    runner.run(one)
                    if counted:
                        times[row].append(1e3 * (time.perf_counter() - start))
                bar.update()
    return {row: np.array(values) for row, values in times.items()}


def predict(runner: Runner, inputs: Sequence[Inputs], progress: str) -> list[NDArray[np.float32]]:
    """Run all inputs, one at a time as they would be served, and return what the head gives for each.

    Returns:
        (width,) each, or (length, width) of a head that answers for each token.
    """
    return [runner.run(runner.prepare(one))[0] for one in tqdm(inputs, desc=progress, unit="example")]


def predict_rows(
    task: TableTask, runner: Runner, inputs: Sequence[Inputs], rows: Dataset, progress: str
) -> list[NDArray[np.float32]]:
    """Run rows with labels as `predict` does, and return what the task keeps of what the head gives for each.

    Args:
        task: The task.
        runner: The model.
        inputs: The rows as the model reads them.
        rows: The rows, as the task made them.
        progress: Title of the progress bar.

    Returns:
        (width,) each, or (length, width).
    """
    found = []
    for one, labels in zip(tqdm(inputs, desc=progress, unit="example"), rows["labels"], strict=True):
        output = torch.from_numpy(runner.run(runner.prepare(one)))
        found.append(task.condensed(output, torch.as_tensor(labels)[None])[0].numpy())
    return found


def benchmark_rows(
    files: Mapping[Row, ModelFile],
    times: Mapping[Row, NDArray[np.float64]],
    threads: int,
    scores: Mapping[Row, Score] | None = None,
    calls: Mapping[Row, NDArray[np.float64]] | None = None,
) -> tuple[BenchmarkRow, ...]:
    """Build the rows of `benchmark.json`.

    Args:
        files: File of each row.
        times: Times of each row, in milliseconds.
        threads: Threads that the times were taken with.
        scores: The metric of each row, where predictions were measured.
        calls: Times of the student's whole calls, as of `edgemin_hf.benchmark.whole_call.whole_calls`.

    Returns:
        The rows.
    """
    calls = {} if calls is None else calls
    rows = []
    for row, file in files.items():
        score = None if scores is None else scores[row]
        whole = {by: calls.get((by, *row[1:])) if row[0] == "student" else None for by in ("runtime", "optimum")}
        told = {by: None if ms is None else Latency.of(ms) for by, ms in whole.items()}
        rows.append(
            BenchmarkRow(
                *row,
                metric=None if score is None else score.metric,
                value=None if score is None else score.value,
                ci95=None if score is None else score.ci95,
                n=None if score is None else score.n,
                greater_is_better=score is None or score.greater_is_better,
                parameters=file.parameters,
                size_bytes=file.size_bytes,
                batch_size=1,
                threads=threads,
                latency_ms=Latency.of(times[row]),
                whole_call_ms=told["runtime"],
                optimum_call_ms=told["optimum"],
            )
        )
    return tuple(rows)
