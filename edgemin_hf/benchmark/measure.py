"""Latency by interleaved rounds, predictions, and the rows of `benchmark.json`."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from edgemin_hf.benchmark.runners import Inputs, OnnxRunner, OpenVinoRunner, PyTorchRunner, Runner
from edgemin_hf.data.tables import Text
from edgemin_hf.export.graph import count_parameters, size_bytes
from edgemin_hf.export.onnx import FP32_GRAPH, QUANTIZED_GRAPHS

Row = tuple[str, str, str]
"""Model ("teacher", "student"), runtime ("pytorch", "onnxruntime", "openvino"), precision ("fp32", "int8", "int4")."""

Name = TypeVar("Name", bound=tuple[Any, ...])

_PACKAGES = (
    "accelerate", "datasets", "edgemin-hf", "numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers",
    "torch", "transformers",
)  # fmt: skip


def tokenized(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Text]) -> list[Inputs]:
    """Tokenise texts or pairs one by one, without padding, cut after 128 tokens."""
    longest = min(128, tokenizer.model_max_length)
    encoded = (tokenizer([text], truncation=True, max_length=longest, return_tensors="np") for text in texts)
    return [{name: array.astype(np.int64) for name, array in inputs.items()} for inputs in encoded]


def files_of(model: str, checkpoint: Path, graphs: Path) -> dict[Row, Path]:
    """Return the weight file of each row of a model: its checkpoint and its graphs, as they were made."""
    quantized = {p: graphs / file for p, file in QUANTIZED_GRAPHS.items() if (graphs / file).is_file()}
    return {
        (model, "pytorch", "fp32"): checkpoint / "model.safetensors",
        (model, "onnxruntime", "fp32"): graphs / FP32_GRAPH,
        **{(model, "onnxruntime", precision): file for precision, file in quantized.items()},
    }


def in_openvino(files: Mapping[Row, Path]) -> dict[Row, Path]:
    """Return the rows that run the graphs of ONNX Runtime's rows in OpenVINO."""
    return {
        (model, "openvino", precision): file
        for (model, runtime, precision), file in files.items()
        if runtime == "onnxruntime"
    }


def load_runner(row: Row, file: Path, threads: int) -> Runner:
    """Load a row's model for running in its runtime."""
    if row[1] == "pytorch":
        return PyTorchRunner(file.parent, threads)
    return OpenVinoRunner(file, threads) if row[1] == "openvino" else OnnxRunner(file, threads)


def measure_latency(
    runners: Mapping[Name, Runner], inputs: Mapping[Any, Sequence[Inputs]], rounds: int, progress: str = "Latency"
) -> dict[Name, np.ndarray]:
    """Time the forward pass of every model on the same texts, one at a time.

    Each round runs all inputs through one model after the other, so that a change of the machine's speed meets all of
    them; a first round warms up and is not counted.

    Args:
        runners: The models, such as those of rows.
        inputs: By the name of a model, which its key begins with, the texts as its tokenizer reads them.
        rounds: Number of counted rounds.
        progress: Title of the progress bar.

    Returns:
        For each model all its times, in milliseconds (rounds * inputs,).
    """
    times: dict[Name, list[float]] = {row: [] for row in runners}
    prepared = {row: [runner.prepare(one) for one in inputs[row[0]]] for row, runner in runners.items()}
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


def predict(runner: Runner, inputs: Sequence[Inputs], progress: str) -> np.ndarray:
    """Run all inputs, one at a time as they would be served, and return the logits (inputs, labels)."""
    return np.concatenate([runner.run(runner.prepare(one)) for one in tqdm(inputs, desc=progress, unit="example")])


def parameters_of(file: Path) -> int:
    """Count the parameters in a graph's initialisers, or in a checkpoint's tensors."""
    if file.suffix == ".onnx":
        return count_parameters(file)
    with safe_open(file, "pt") as tensors:
        return sum(int(np.prod(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118


def benchmark_rows(
    files: Mapping[Row, Path],
    times: Mapping[Row, np.ndarray],
    threads: int,
    results: Mapping[Row, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Build the rows of `benchmark.json`.

    Args:
        files: Weight file of each row.
        times: Times of each row, in milliseconds.
        threads: Threads that the times were taken with.
        results: "metric", "value", "ci95" and "n" of each row, where predictions were measured.

    Returns:
        One mapping a row.
    """
    unknown = {"metric": None, "value": None, "ci95": None, "n": None}
    return [
        {
            "model": row[0],
            "runtime": row[1],
            "precision": row[2],
            **(unknown if results is None else results[row]),
            "parameters": parameters_of(file),
            "size_bytes": size_bytes(file) if file.suffix == ".onnx" else file.stat().st_size,
            "batch_size": 1,
            "threads": threads,
            "latency_ms": {f"p{q}": float(np.percentile(times[row], q)) for q in (50, 90, 99)},
        }
        for row, file in files.items()
    ]


def environment(threads: int, *more_packages: str) -> dict[str, Any]:
    """Describe the machine and the versions behind a measurement, those of further packages too."""
    return {
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "vnni": bool(cpu_flags() & {"avx512_vnni", "avx_vnni"}),
        "bf16": bool(cpu_flags() & {"avx512_bf16", "amx_bf16"}),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in (*_PACKAGES, *more_packages)},
    }


def cpu_flags() -> set[str]:
    """Return the processor's feature flags as Linux names them; none on other systems."""
    return set(_cpu_info("flags")[0].split()) if _cpu_info("flags") else set()


def _cpu_name() -> str:
    names = _cpu_info("model name")
    return f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown"


def _cpu_info(key: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]
