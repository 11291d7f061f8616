import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow, Latency
from edgemin_hf.export.manifest import Manifest, ManifestEntry
from edgemin_hf.report.ending import five_lines
from edgemin_hf.report.figures import bytes_by_component, latency_distributions, size_against_metric
from edgemin_hf.report.page import finished_row, headline, render_report, result_table, summary_table, three_digits
from edgemin_hf.report.records import StageRecord
from edgemin_hf.utils.hardware import Environment
from tests.helpers.figures import boxes, parsed, texts


def row(model, runtime, precision, value, megabytes, p50):
    return BenchmarkRow(
        model, runtime, precision, metric="accuracy", value=value, ci95=(value - 0.009, value + 0.008), n=3080,
        parameters=22_743_000 if model == "teacher" else 14_160_000, size_bytes=int(megabytes * 1e6),
        batch_size=1, threads=2, latency_ms=Latency(p50, 1.2 * p50, 1.5 * p50),
    )  # fmt: skip


ROWS = [
    row("teacher", "pytorch", "fp32", 0.92, 90.0, 8.0),
    row("teacher", "onnxruntime", "fp32", 0.92, 90.0, 4.0),
    row("teacher", "onnxruntime", "int8", 0.917, 23.0, 2.0),
    row("student", "pytorch", "fp32", 0.908, 57.0, 3.0),
    row("student", "onnxruntime", "fp32", 0.908, 57.0, 1.0),
    row("student", "onnxruntime", "int8", 0.897, 15.0, 0.5),
]
UNSCORED = {"value": None, "ci95": None, "n": None}
TIMES = "\N{MULTIPLICATION SIGN}"
ENVIRONMENT = Environment(
    cpu="A & B", cpu_capability="AVX512", vnni=True, bf16=False, threads=2, system="Linux x86_64", python="3.11",
    packages={"torch": "2.13", "onnx": "1.23"},
)  # fmt: skip
BENCHMARK = Benchmark(tuple(ROWS), ENVIRONMENT)
STAGES = [
    StageRecord("distill", True, examples=25103, seconds=81.24, metric="loss", after=0.41),
    StageRecord("prune", True, examples=9000, seconds=40.0, metric="accuracy", before=0.917, after=0.908),
]
LATENCIES = {r.label: [r.latency_ms.p50 * factor for factor in (0.9, 1, 1, 1.1, 1.6)] for r in ROWS}
COMPONENTS = {
    "teacher fp32": {"word embeddings": 47_000_000, "attention": 14_000_000, "FFN": 28_000_000, "head": 700_000},
    "student int8": {"word embeddings": 12_000_000, "attention": 900_000, "FFN": 1_200_000, "head": 200_000},
}
FIGURES = {
    "size": lambda: size_against_metric(ROWS),
    "latency": lambda: latency_distributions(LATENCIES),
    "bytes": lambda: bytes_by_component(COMPONENTS),
    "crowded sizes": lambda: size_against_metric([replace(r, size_bytes=20_000_000 + i) for i, r in enumerate(ROWS)]),
    "long tail": lambda: latency_distributions({"student": [1.0] * 90 + [1.86] * 10}),
    "one file": lambda: bytes_by_component({"student": COMPONENTS["student int8"]}),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_figures_are_reproducible_and_carry_nothing_into_the_page(draw):
    svg = draw()
    assert svg == draw()
    assert svg.startswith("<svg ")
    assert "<style" not in svg
    assert "metadata" not in svg


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_no_text_of_a_figure_covers_another_or_leaves_it(draw):
    svg = draw()
    _, _, width, height = map(float, parsed(svg).get("viewBox").split())
    found = boxes(svg)
    assert len(found) > 4
    for _, left, right, top, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    for (a, a_left, a_right, a_top, a_bottom), (b, b_left, b_right, b_top, b_bottom) in combinations(found, 2):
        apart = a_right <= b_left or b_right <= a_left or a_bottom <= b_top or b_bottom <= a_top
        assert apart, (a, b)


def test_every_scored_row_is_a_labelled_point():
    drawn = texts(size_against_metric([*ROWS[:5], replace(ROWS[5], **UNSCORED)]))
    assert {r.label for r in ROWS[:5]} <= set(drawn)
    assert ROWS[5].label not in drawn
    with pytest.raises(ValueError, match="no row"):
        size_against_metric([replace(ROWS[5], **UNSCORED)])


def test_latencies_are_sorted_and_show_their_medians():
    drawn = texts(latency_distributions(LATENCIES))
    assert [text for text in drawn if text in LATENCIES] == sorted(LATENCIES, key=lambda label: LATENCIES[label][1])
    assert {"0.500 ms", "1.00 ms", "8.00 ms"} <= set(drawn)
    for bad in ({}, {"student": []}):
        with pytest.raises(ValueError, match="latency"):
            latency_distributions(bad)


def test_bytes_name_every_component_once_and_total_each_file():
    drawn = " ".join(texts(bytes_by_component(COMPONENTS)))
    assert "89.7 MB" in drawn
    assert "14.3 MB" in drawn
    for component in COMPONENTS["student int8"]:
        assert drawn.count(component) == 1
    with pytest.raises(ValueError, match="no files"):
        bytes_by_component({})


def test_the_headline_compares_with_every_row_of_the_teacher():
    assert headline(BENCHMARK) == (
        "The student at int8 in ONNX Runtime takes 15.0 MB, 16.7% of the teacher's 90.0 MB. Half of its calls return "
        "within 0.500 ms: 16.0 times as fast as the teacher in PyTorch (fp32), 8.0 times as fast as in ONNX Runtime "
        "(fp32) and 4.0 times as fast as in ONNX Runtime (int8). Its accuracy is 89.7% against the teacher's 92.0%, so "
        "it keeps 97.5% of it."
    )


def test_of_what_less_is_better_nothing_is_kept():
    assert "so it keeps" in headline(BENCHMARK)
    for more in ({"metric": "mse"}, {"metric": "mistakes", "greater_is_better": False}):
        rows = tuple(replace(one, **more) for one in ROWS)
        assert "so it keeps" not in headline(Benchmark.from_dict(Benchmark(rows, ENVIRONMENT).to_dict()))


def test_a_teacher_measured_otherwise_is_no_reference():
    benchmark = Benchmark((replace(ROWS[0], threads=8), ROWS[5]), ENVIRONMENT)
    assert result_table(benchmark).rows[1][-2:] == ["—", "—"]
    assert "teacher" not in headline(benchmark)


@pytest.mark.parametrize("rows", [ROWS[3:], ROWS[:2], [replace(ROWS[5], **UNSCORED)], []], ids=len)
def test_any_subset_of_rows_can_be_reported(rows):
    benchmark = Benchmark(tuple(rows), ENVIRONMENT)
    page = render_report("Some rows", benchmark, [], {})
    assert headline(benchmark) in page.replace("&#39;", "'")
    assert summary_table(benchmark)
    if rows:
        assert rows[0] == finished_row(rows[:1])
        assert ("faster" in result_table(benchmark).headers) == (ROWS[0] in rows)


def test_the_summary_fits_a_terminal_and_aligns():
    lines = summary_table(BENCHMARK).splitlines()
    assert max(map(len, lines)) <= 120
    head, table = lines[0], lines[2:8]
    for header in ("params (M)", "size (MB)", "accuracy % [95%]", "p50 (ms)", "faster"):
        end = head.index(header) + len(header)
        assert all(line[end - 1] != " " and line[end : end + 2].strip() == "" for line in table)
    assert re.findall(r"\S+", table[5]) == [
        "student", "onnxruntime", "int8", "14.16", "15.0", "89.7", "[88.8,", "90.5]", "0.500", "0.600", "0.750",
        f"6.0{TIMES}", f"16.0{TIMES}",
    ]  # fmt: skip


def test_what_was_not_measured_is_a_dash():
    cells = result_table(Benchmark((replace(ROWS[5], **UNSCORED),), ENVIRONMENT)).rows[0]
    assert cells[5] == "—"
    page = render_report("Report", BENCHMARK, STAGES, {})
    assert re.search(r'data-label="before"[^>]*>—<', page)


def test_the_report_holds_the_numbers_of_rows_stages_and_environment():
    page = render_report("Report", BENCHMARK, STAGES, {"A caption": size_against_metric(ROWS)})
    for text in (
        "89.7 [88.8, 90.5]",
        f"16.0{TIMES}",
        "25,103",
        "81.2",
        "0.41",
        "torch 2.13, onnx 1.23",
        "yes",
        "A caption",
    ):
        assert text in page
    assert page.count("<svg ") == 1
    assert re.search(r'<tr class="marked">\s*<td[^>]*>student</td>\s*<td[^>]*>onnxruntime</td>\s*<td[^>]*>int8', page)


def test_the_report_loads_nothing_and_escapes_everything():
    bad = "<script>alert(1)</script>"
    benchmark = Benchmark(
        (replace(ROWS[0], runtime=bad), *ROWS[1:]), replace(ENVIRONMENT, cpu=bad, system=bad, packages={bad: bad})
    )
    stages = [replace(STAGES[0], stage=bad, metric=bad)]
    figures = {bad: latency_distributions({bad: [1.0, 2.0]})} | {name: draw() for name, draw in FIGURES.items()}
    page = render_report(bad, benchmark, stages, figures)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8
    assert not re.search(r"<(link|img|iframe|object|embed|base)\b|@import|http-equiv=.refresh", page)
    assert all(target.startswith("#") for target in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]*)", page))
    assert all(target.startswith("#") for target in re.findall(r"url\([\"']?([^)\"']*)", page))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0123, "0.012"), (0.5341, "0.534"), (5.0, "5.00"), (12.34, "12.3"), (1398.2, "1,398")],
)
def test_latencies_are_written_to_three_digits(value, text):
    assert three_digits(value) == text


def test_the_ending_names_the_precision_of_a_fused_graph_and_its_file():
    entry = ManifestEntry("onnx/model_quantized_fused.onnx", "onnxruntime", "int8", 15, "0" * 64, 1, fused=True)
    manifest = Manifest(1, "text_classification", "text-classification", texts=(), entries=(entry,))
    benchmark = replace(BENCHMARK, rows=(*ROWS, row("student", "onnxruntime", "int8-fused", 0.897, 15.0, 0.4)))
    told = five_lines("Banking", benchmark, manifest, [], Path("edge"), "the test set", None).splitlines()
    assert told[0] == "made      Banking: 14.2 million parameters in INT8"
    assert "(onnx/model_quantized_fused.onnx)" in told[1]
