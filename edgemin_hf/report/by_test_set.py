"""Telling what models are worth on each of several test sets, such as one in each language."""

from __future__ import annotations

from collections.abc import Mapping

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.report.page import finished_row, with_interval
from edgemin_hf.report.tables import CaptionedTable, Table
from edgemin_hf.tasks.metrics import Measurement, metric_named


def by_test_set(results: Mapping[str, Measurement], benchmark: Benchmark, first: str) -> CaptionedTable | None:
    """Lay out the metric that decides by test sets: of the teacher, its dynamic INT8, and the row to deploy.

    Args:
        results: What was measured of each row, by its model, runtime and precision with "_" between.
        benchmark: The rows.
        first: What to call the test table itself.

    Returns:
        None where there is no further test set.

    Example:
        >>> from edgemin_hf.benchmark import Benchmark, BenchmarkRow, Latency
        >>> from edgemin_hf.report.by_test_set import by_test_set
        >>> from edgemin_hf.utils.hardware import environment
        >>> english = {"metric": "accuracy", "value": 0.9, "ci95": [0.85, 0.95], "n": 100}
        >>> german = {"metric": "accuracy", "value": 0.8, "ci95": [0.7, 0.9], "n": 50}
        >>> cost = {"parameters": 1000, "size_bytes": 4096, "batch_size": 1, "threads": 1}
        >>> row = BenchmarkRow("student", "onnxruntime", "int8", **english, **cost, latency_ms=Latency(0.6, 0.7, 0.9))
        >>> results = {"student_onnxruntime_int8": {**english, "further_tests": {"German": german}}}
        >>> by_test_set(results, Benchmark((row,), environment(threads=1)), "English").table.rows
        [['English', '100', '90.0 [85.0, 95.0]'], ['German', '50', '80.0 [70.0, 90.0]']]
    """
    finished = finished_row(benchmark.rows)
    rows = [("teacher", "pytorch", "fp32"), ("teacher", "onnxruntime", "int8")]
    rows = [*rows, (finished.model, finished.runtime, finished.precision)]
    measured = {f"{row[0]} {row[2]}": results["_".join(row)] for row in rows if "_".join(row) in results}
    further = next(reversed(measured.values())).get("further_tests", {})
    if not further:
        return None
    sets = [[found, *found.get("further_tests", {}).values()] for found in measured.values()]
    cells = [
        [name, f"{found[0]['n']:,}", *(with_interval(one["value"], _ends(one)) for one in found)]
        for name, *found in zip([first, *further], *sets, strict=True)
    ]
    caption = f"{metric_named(sets[-1][0]['metric']).axis} by test set, with 95% intervals"
    return CaptionedTable(caption, Table(["test set", "examples", *measured], cells))


def _ends(found: Measurement) -> tuple[float, float]:
    low, high = found["ci95"]
    return low, high
