"""Measuring a finished artefact again, on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from edgemin_hf.benchmark.measure import (
    benchmark_rows,
    environment,
    files_of,
    in_openvino,
    load_runner,
    measure_latency,
    tokenized,
)
from edgemin_hf.data.tables import Text
from edgemin_hf.export.fidelity import SAMPLE_TEXTS
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.utils.extras import check_extra


def benchmark_artefact(
    artefact: Path, teacher: Path | None, texts: Path | None, *, threads: int, rounds: int, openvino: bool = False
) -> dict[str, Any]:
    """Measure latency and size of an artefact, and of its teacher where one is given.

    Args:
        artefact: Folder with `model.safetensors`, the tokenizer and both graphs.
        teacher: Folder of the teacher's checkpoint; its graphs are exported for the occasion.
        texts: File with a text a line, or a pair with a tab between; None takes built-in sentences.
        threads: Threads of a pass.
        rounds: Number of counted rounds over the sentences.
        openvino: Whether the graphs are measured in OpenVINO too.

    Returns:
        The contents of a `benchmark.json`, without the task's metric.

    Raises:
        ValueError: If a file or OpenVINO is missing, or a number is below 1.
    """
    for name, value in (("threads", threads), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"--{name} {value}; allowed: 1 or more")
    if openvino:
        check_extra("openvino", "--openvino")
    files = files_of("student", artefact, artefact)
    required = [*files.values(), artefact / "config.json"]
    required += [] if teacher is None else [teacher / "config.json", teacher / "model.safetensors"]
    for file in required:
        if not file.is_file():
            raise ValueError(f"{file}, which is missing; allowed: a folder that `edgemin run` made")
    sentences = SAMPLE_TEXTS if texts is None else _read_lines(texts)
    with tempfile.TemporaryDirectory() as scratch:
        if teacher is not None:
            export_baseline(teacher, Path(scratch) / "teacher")
            files = files_of("teacher", teacher, Path(scratch) / "teacher") | files
        if openvino:
            files |= in_openvino(files)
        runners = {row: load_runner(row, file, threads) for row, file in files.items()}
        folders = {"student": artefact} if teacher is None else {"student": artefact, "teacher": teacher}
        inputs = {
            model: tokenized(AutoTokenizer.from_pretrained(folder), sentences) for model, folder in folders.items()
        }
        times = measure_latency(runners, inputs, rounds)
        rows = benchmark_rows(files, times, threads)
    return {"rows": rows, "environment": environment(threads, *["openvino"] * openvino)}


def _read_lines(path: Path) -> list[Text]:
    if not path.is_file():
        raise ValueError(f"--texts {path}, which is no file; allowed: a text file with a sentence a line")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"--texts {path}, which is empty; allowed: a text file with a sentence a line")
    return [(first, second) if tab else first for first, tab, second in (line.partition("\t") for line in lines)]
