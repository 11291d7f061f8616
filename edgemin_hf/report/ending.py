"""What a run tells at its end, in five lines: what it made, how big, how fast and how good it is, where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow
from edgemin_hf.export.manifest import Manifest
from edgemin_hf.report.page import finished_row, three_digits, with_interval
from edgemin_hf.report.records import StageRecord
from edgemin_hf.runtime.artefact import unfused
from edgemin_hf.tasks.metrics import metric_named


def five_lines(
    title: str,
    benchmark: Benchmark,
    manifest: Manifest,
    stages: Sequence[StageRecord],
    folder: Path,
    test_set: str,
    asked: str | None,
) -> str:
    """Return the five lines.

    Args:
        title: Name of the model.
        benchmark: What was measured.
        manifest: The artefact's.
        stages: Records of the stages, in their order.
        folder: The artefact.
        test_set: What the metric was measured on, in words.
        asked: What follows `edgemin predict ARTEFACT` on a command line; None where no text can be asked.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.benchmark import Benchmark, BenchmarkRow, Latency
        >>> from edgemin_hf.export import Manifest
        >>> from edgemin_hf.report.ending import five_lines
        >>> from edgemin_hf.utils.hardware import environment
        >>> score = {"metric": "accuracy", "value": 0.92, "ci95": (0.91, 0.93), "n": 3080}
        >>> cost = {"parameters": 14_000_000, "size_bytes": 14_400_000, "batch_size": 1, "threads": 1}
        >>> row = BenchmarkRow("student", "onnxruntime", "int8", **score, **cost, latency_ms=Latency(0.6, 0.7, 0.9))
        >>> manifest = Manifest(1, "text_classification", "text-classification", texts=(), entries=())
        >>> measured, folder = Benchmark((row,), environment(threads=1)), Path("run/artefact")
        >>> print(five_lines("Banking", measured, manifest, [], folder, "the test set", '--text "Hi"'))
        made      Banking: 14.0 million parameters in INT8
        size      14.4 MB
        speed     0.600 ms a pass (p50, batch 1, 1 thread)
        accuracy  92.0% [91.0, 93.0] on the test set
        next      edgemin predict run/artefact --text "Hi"
    """
    rows, row = benchmark.rows, finished_row(benchmark.rows)
    wanted = ("teacher", "pytorch", "fp32")
    teacher = next((other for other in rows if (other.model, other.runtime, other.precision) == wanted), None)
    seconds = sum(stage.seconds or 0 for stage in stages)
    took = f", in {seconds / 60:.1f} min of stages" if seconds else ""
    lines = {
        "made": f"{title}: {row.parameters / 1e6:.1f} million parameters in {unfused(row.precision).upper()}{took}",
        "size": _size(row, manifest, teacher),
        "speed": _speed(row, teacher),
        **_quality(row, teacher, test_set),
        "next": f"edgemin verify {folder}" if asked is None else f"edgemin predict {folder} {asked}",
    }
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{told}" for name, told in lines.items())


def _size(row: BenchmarkRow, manifest: Manifest, teacher: BenchmarkRow | None) -> str:
    entry = manifest.entry(row.runtime, row.precision)
    file = "" if entry is None else f" ({entry.file})"
    factor = "" if teacher is None else f", {teacher.size_bytes / row.size_bytes:.1f} times smaller than the teacher"
    return f"{row.size_bytes / 1e6:.1f} MB{file}{factor}"


def _speed(row: BenchmarkRow, teacher: BenchmarkRow | None) -> str:
    threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
    whole = "" if row.whole_call_ms is None else f"{three_digits(row.whole_call_ms.p50)} ms a whole call, "
    told = f"{whole}{three_digits(row.latency_ms.p50)} ms a pass (p50, batch {row.batch_size}, {threads})"
    if teacher is None or teacher.threads != row.threads:
        return told
    return f"{told}, {teacher.latency_ms.p50 / row.latency_ms.p50:.1f} times as fast as the teacher in PyTorch"


def _quality(row: BenchmarkRow, teacher: BenchmarkRow | None, test_set: str) -> dict[str, str]:
    if row.score is None:
        return {"quality": "not measured"}
    metric = metric_named(row.score.metric, row.score.greater_is_better)

    def written(value: float, ci95: tuple[float, float] | None) -> str:
        number, _, interval = with_interval(value, ci95).partition(" ")
        return f"{number}{'%' if metric.unit == '%' else ''} {interval}".rstrip()

    theirs = teacher.score if teacher is not None else None
    beside = "" if theirs is None else f"; the teacher {written(theirs.value, theirs.ci95)}"
    return {row.score.metric: f"{written(row.score.value, row.score.ci95)} on {test_set}{beside}"}
