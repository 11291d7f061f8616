"""Tell a benchmark's results: one self-contained HTML page, a table for the terminal, a sentence for the model card."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from math import floor, log10

import jinja2
from markupsafe import Markup

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow
from edgemin_hf.report.measurement import class_tables, further_metrics
from edgemin_hf.report.records import StageRecord
from edgemin_hf.report.rivals import how_to_read, rivals_table, verdict
from edgemin_hf.report.tables import TEXT_COLUMNS, CaptionedTable, Table, text_table
from edgemin_hf.rivals.compare import Comparison
from edgemin_hf.runtime.artefact import is_fused
from edgemin_hf.tasks.metrics import Measurement, metric_named

DASH = "—"
"""Precisions of quantised models."""
RUNTIMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def render_report(
    title: str,
    benchmark: Benchmark,
    stages: Sequence[StageRecord],
    figures: Mapping[str, str],
    rivals: Comparison | None = None,
    front: str | None = None,
    taught_by: str = "",
    measured: Measurement | None = None,
    by_set: CaptionedTable | None = None,
    vectors: Table | None = None,
) -> str:
    """Render the report as one HTML page without scripts or anything to load.

    Args:
        title: Heading of the page.
        benchmark: What was measured, and where.
        stages: What each stage of the recipe did.
        figures: SVG by caption. It goes into the page as it is: pass figures drawn here only.
        rivals: What the student was measured against, if it was.
        front: SVG of that, which comes before all else; None draws nothing there.
        taught_by: What the student learned from, in words.
        measured: All that was measured of the row to deploy; None shows no more than its rows.
        by_set: What models are worth on each test set, as of `by_test_set`, where there are several.
        vectors: What its vectors are worth at each width and precision, as of `vectors_table`, where it gives some.

    Returns:
        The page.

    Example:
        >>> from edgemin_hf.benchmark import Benchmark, BenchmarkRow, Latency
        >>> from edgemin_hf.report import render_report
        >>> from edgemin_hf.utils.hardware import environment
        >>> score = {"metric": "accuracy", "value": 0.92, "ci95": (0.91, 0.93), "n": 3080}
        >>> cost = {"parameters": 1000, "size_bytes": 4096, "batch_size": 1, "threads": 1}
        >>> row = BenchmarkRow("student", "onnxruntime", "int8", **score, **cost, latency_ms=Latency(0.6, 0.7, 0.9))
        >>> page = render_report("My edge model", Benchmark((row,), environment(threads=1)), stages=[], figures={})
        >>> "<h1>My edge model</h1>" in page
        True
    """
    template = page_template("report.html")
    rows, described = benchmark.rows, benchmark.environment.to_dict()
    return template.render(
        title=title,
        headline=headline(benchmark),
        results=result_table(benchmark),
        finished=rows.index(finished_row(rows)) if rows else None,
        conditions=conditions(benchmark),
        stages=stage_table(stages),
        taught_by=taught_by,
        by_set=by_set,
        further=None if measured is None else further_metrics(measured),
        classes=None if measured is None else class_tables(measured),
        vectors=vectors,
        rivals=None if rivals is None else rivals_table(rivals),
        verdict=[] if rivals is None else verdict(rivals),
        front=None if front is None else Markup(front),  # noqa: S704
        front_caption=None if rivals is None else how_to_read(rivals),
        figures={caption: Markup(svg) for caption, svg in figures.items()},  # noqa: S704
        environment={key.replace("_", " "): environment_text(value) for key, value in described.items()},
        text_columns=TEXT_COLUMNS,
    )


def page_template(name: str) -> jinja2.Template:
    """Load a page's template, a file beside this one that may include others; values are escaped."""
    files = jinja2.FunctionLoader(lambda file: resources.files(__package__).joinpath(file).read_text("utf-8"))
    environment = jinja2.Environment(loader=files, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template(name)


def summary_table(benchmark: Benchmark) -> str:
    """Lay the results out for a terminal of 120 columns.

    Args:
        benchmark: As for `render_report`.

    Returns:
        Lines without a newline at the end.

    Example:
        >>> from edgemin_hf.benchmark import Benchmark, BenchmarkRow, Latency
        >>> from edgemin_hf.report import summary_table
        >>> from edgemin_hf.utils.hardware import environment
        >>> score = {"metric": "accuracy", "value": 0.92, "ci95": (0.91, 0.93), "n": 3080}
        >>> cost = {"parameters": 14_000_000, "size_bytes": 14_400_000, "batch_size": 1, "threads": 1}
        >>> row = BenchmarkRow("student", "onnxruntime", "int8", **score, **cost, latency_ms=Latency(0.6, 0.7, 0.9))
        >>> print(summary_table(Benchmark((row,), environment(threads=1))).splitlines()[2])
        student  onnxruntime  int8            14.00       14.4  92.0 [91.0, 93.0]     0.600     0.700     0.900
    """
    return "\n".join([text_table(result_table(benchmark)), "", *textwrap.wrap(conditions(benchmark), 120)])


def headline(benchmark: Benchmark) -> str:
    """Say in three sentences what the measurements found, comparing with each teacher's row that there is."""
    rows = benchmark.rows
    if not rows:
        return "Nothing was measured."
    row = finished_row(rows)
    teacher = _reference(rows, row) if row.model == "student" else None
    size, speed = f"{row.size_bytes / 1e6:.1f} MB", f"{three_digits(row.latency_ms.p50)} ms"
    if teacher:
        share = row.size_bytes / teacher.size_bytes
        size += f", {share:.1%} of the teacher's {teacher.size_bytes / 1e6:.1f} MB"
    runtime = RUNTIMES.get(row.runtime, row.runtime)
    sentences = [f"The {row.model} at {row.precision} in {runtime} takes {size}."]
    sentences.append(f"Half of its calls return within {speed}{_speeds(rows, row)}.")
    if row.score is not None:
        metric = metric_named(row.score.metric, row.score.greater_is_better)
        name, unit = (metric.title, "%") if metric.unit == "%" else (metric.axis, "")
        quality = f"Its {name} is {100 * row.score.value:.1f}{unit}"
        if teacher and teacher.score and teacher.score.value > 0 and metric.greater_is_better:
            kept, theirs = row.score.value / teacher.score.value, 100 * teacher.score.value
            quality += f" against the teacher's {theirs:.1f}{unit}, so it keeps {kept:.1%} of it"
        sentences.append(quality + ".")
    return " ".join(sentences)


def result_table(benchmark: Benchmark) -> Table:
    """Format the rows of a benchmark; the factors against the teacher are there if its PyTorch row is."""
    rows = benchmark.rows
    metric = rows[0].metric if rows else None
    headers = ["model", "runtime", "precision", "params (M)", "size (MB)"]
    headers.append("metric" if metric is None else metric_named(metric).heading)
    headers += ["p50 (ms)", "p90 (ms)", "p99 (ms)"]
    compared = any(_reference(rows, row) for row in rows)
    return Table(headers + ["smaller", "faster"] * compared, [_cells(rows, row, compared) for row in rows])


def stage_table(stages: Sequence[StageRecord]) -> Table:
    """Format what each stage of the recipe did."""
    rows = []
    for stage in stages:
        metrics = [DASH if value is None else f"{value:.4g}" for value in (stage.before, stage.after)]
        rows.append(
            [
                stage.name or stage.stage,
                DASH if stage.examples is None else f"{stage.examples:,}",
                DASH if stage.seconds is None else f"{stage.seconds:,.1f}",
                stage.metric or DASH,
                *metrics,
            ]
        )
    return Table(["stage", "examples seen", "seconds", "validation metric", "before", "after"], rows)


def conditions(benchmark: Benchmark) -> str:
    """Say under what conditions the rows were measured, and what their factors compare with."""
    rows = benchmark.rows
    parts = [f"batch size {_distinct(row.batch_size for row in rows)}"]
    parts.append(f"threads {_distinct(row.threads for row in rows)}")
    if any(row.score for row in rows):
        parts.append(f"test examples {_distinct(row.n for row in rows)} (95% intervals in brackets)")
    text = f"Latency of one call; {', '.join(parts)}."
    if any(_reference(rows, row) for row in rows):
        text += " Smaller, faster: factors against the teacher in PyTorch, by size and p50."
    calls = [told for row in rows for told in _whole_calls(row)]
    return text + f" Whole calls, text in and answer out, p50: {'; '.join(calls)}." * bool(calls)


def _whole_calls(row: BenchmarkRow) -> Iterator[str]:
    ways = {"by edgemin_hf.runtime": row.whole_call_ms, "through Optimum's pipeline": row.optimum_call_ms}
    told = [f"{three_digits(latency.p50)} ms {way}" for way, latency in ways.items() if latency is not None]
    if told:
        yield f"{row.precision} {', '.join(told)}"


def finished_row(rows: Sequence[BenchmarkRow]) -> BenchmarkRow:
    """Pick the row to deploy, which is what `edgemin_hf.runtime.load` takes by itself.

    That is the student's fused graph in ONNX Runtime, else its first quantised one there, else its first there, else
    its last. Without a student any model's rows count.
    """
    candidates = [row for row in rows if row.model == "student"] or rows
    graphs = [row for row in candidates if row.runtime == "onnxruntime"]
    return min(graphs, key=lambda row: (not is_fused(row.precision), row.precision == "fp32"), default=candidates[-1])


def three_digits(value: float) -> str:
    """Format a positive number with three significant digits, at most three decimals and never an exponent."""
    decimals = 2 - floor(log10(value)) if value > 0 else 0
    return f"{value:,.{min(max(decimals, 0), 3)}f}"


def _teacher(rows: Sequence[BenchmarkRow], row: BenchmarkRow, runtime: str, precision: str) -> BenchmarkRow | None:
    """Find the teacher's row that was measured with the batch size and threads of `row`."""
    wanted = ("teacher", runtime, precision, row.batch_size, row.threads)
    return next((o for o in rows if (o.model, o.runtime, o.precision, o.batch_size, o.threads) == wanted), None)


def _reference(rows: Sequence[BenchmarkRow], row: BenchmarkRow) -> BenchmarkRow | None:
    return _teacher(rows, row, "pytorch", "fp32")


def _speeds(rows: Sequence[BenchmarkRow], row: BenchmarkRow) -> str:
    """Compare a student's median latency with each of the teacher's."""
    speeds: list[str] = []
    for runtime, precision in (("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")):
        teacher = _teacher(rows, row, runtime, precision)
        if teacher is not None and row.model == "student":
            factor = teacher.latency_ms.p50 / row.latency_ms.p50
            whom = "as" if speeds else "as the teacher"
            speeds.append(f"{factor:.1f} times as fast {whom} in {RUNTIMES[runtime]} ({precision})")
    if len(speeds) > 1:
        speeds[-2:] = [" and ".join(speeds[-2:])]
    return ": " + ", ".join(speeds) if speeds else ""


def _cells(rows: Sequence[BenchmarkRow], row: BenchmarkRow, compared: bool) -> list[str]:
    value = DASH
    if row.score is not None:
        value = with_interval(row.score.value, row.score.ci95)
    cells = [row.model, row.runtime, row.precision, f"{row.parameters / 1e6:.2f}"]
    cells += [f"{row.size_bytes / 1e6:.1f}", value]
    cells += [three_digits(ms) for ms in (row.latency_ms.p50, row.latency_ms.p90, row.latency_ms.p99)]
    if compared:
        teacher = _reference(rows, row)
        pairs = teacher and (
            (teacher.size_bytes, row.size_bytes),
            (teacher.latency_ms.p50, row.latency_ms.p50),
        )
        cells += [f"{theirs / ours:.1f}\N{MULTIPLICATION SIGN}" for theirs, ours in pairs] if pairs else [DASH, DASH]
    return cells


def with_interval(value: float, ci95: tuple[float, float] | None) -> str:
    """Write 100 times a metric, with its interval where it has one."""
    interval = "" if ci95 is None else f" [{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"
    return f"{100 * value:.1f}{interval}"


def _distinct(values: Iterable[int | None]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or DASH


def environment_text(value: object) -> str:
    """Write a value of an environment, or of settings, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return str(value)
