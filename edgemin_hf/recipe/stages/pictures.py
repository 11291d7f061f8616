"""The figures of a finished run, by the names of their files."""

from __future__ import annotations

from safetensors.numpy import load_file

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.export.graph import bytes_by_component
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import Product
from edgemin_hf.recipe.search.teacher_layer import SEARCH_CURVE
from edgemin_hf.recipe.stages.evaluate import measured_files
from edgemin_hf.report import figures
from edgemin_hf.report.length_figure import latency_by_length
from edgemin_hf.report.reliability_figure import draw_reliability
from edgemin_hf.report.training_figure import training_curves
from edgemin_hf.tasks.metrics.analysis import Analysis


def draw_pictures(context: Context, benchmark: Benchmark, analysis: Analysis | None) -> dict[str, tuple[str, str]]:
    """Return, by file name, the caption and the SVG of each figure.

    Args:
        context: The recipe at work.
        benchmark: What was measured.
        analysis: The student beside its teacher; None of a run whose version did not tell.
    """
    times = load_file(context.folder_with(Product.BENCHMARK) / "latencies.safetensors")
    latencies = {row.label: times["_".join(row.row)].tolist() for row in benchmark.rows}
    components = {
        f"{model} {precision}": bytes_by_component(file.path)
        for (model, runtime, precision), file in measured_files(context).items()
        if runtime == "onnxruntime" and (model, precision) != ("teacher", "int8")
    }
    metric = context.task.metrics[0]
    pictures = {
        "size_metric": (
            f"Size on disk against {metric.title}: {metric.way_up} and to the left is better. "
            "The upright axis does not start at zero.",
            figures.size_against_metric(benchmark.rows),
        ),
        "latency": (
            "Latency of one text without padding: further left is better.",
            figures.latency_distributions(latencies),
        ),
        "bytes": (
            "Where the bytes are, by the part of the model that they belong to.",
            figures.bytes_by_component(components),
        ),
    }
    if len(benchmark.by_length) > 1:
        caption = "Latency of a whole call, text in and answer out, by the tokens of its text: p50 and p95."
        pictures["latency_by_length"] = (caption, latency_by_length(benchmark.by_length))
    if analysis is not None and analysis.calibration:
        caption = (
            "Reliability: on the dashed line labels are right as often as their probability says; below it they are "
            "right less often. A mark is a bin, and bins hold as many examples each."
        )
        pictures["reliability"] = (caption, draw_reliability(analysis.calibration))
    records = context.finished_records()
    if (curves := training_curves(records)) is not None:
        pictures["training"] = ("How each training went: the loss, and the metric on held-out rows.", curves)
    # By the records: the curve of a search that the recipe no longer asks for may still lie there.
    if any(record.search for record in records):
        caption = "The teacher's layers that stage 1 tried: the best on validation, after a small budget, was taken."
        pictures["teacher_layers"] = (caption, (context.output / SEARCH_CURVE).read_text(encoding="utf-8"))
    return pictures
