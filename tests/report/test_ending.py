"""The five lines at the end of a run."""

import shlex
from dataclasses import replace
from pathlib import Path

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.export.manifest import Manifest
from edgemin_hf.report.ending import five_lines
from tests.report.test_page import BENCHMARK


def test_what_to_type_next_can_be_typed_and_a_fused_graph_has_a_precision():
    row = replace(next(row for row in BENCHMARK.rows if row.precision == "int8"), precision="int8-fused")
    manifest = Manifest(1, "text_classification", "text-classification", texts=(), entries=())
    measured, folder = Benchmark((row,), BENCHMARK.environment), Path("my runs/it's one")
    made, *_, last = five_lines("A", measured, manifest, [], folder, "the test set", "--text 'Hi'").splitlines()
    assert made.endswith("million parameters in INT8")
    assert shlex.split(last) == ["next", "edgemin", "predict", str(folder), "--text", "Hi"]
