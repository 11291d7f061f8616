"""The stage `benchmark`: latency and size of every file, beside what it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from datasets import load_from_disk
from pydantic.dataclasses import dataclass
from safetensors.numpy import save_file

from edgemin_hf.benchmark.measure import benchmark_rows, environment, load_runner, measure_latency
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import STRICT, Count, Product
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.stages.evaluate import arrays_of, measured_files
from edgemin_hf.report.page import summary_table
from edgemin_hf.utils.extras import check_extra


@dataclass(config=STRICT)
class Benchmark(WritingStage):
    """Measure latency on test sentences, batch 1, without padding.

    Attributes:
        sentences: Number of sentences, evenly spaced in the test set.
        rounds: Number of counted rounds over them.
        openvino: Whether the graphs are measured in OpenVINO too, and by the stage `evaluate` their predictions.
    """

    stage: Literal["benchmark"] = "benchmark"
    sentences: Count = 500
    rounds: Count = 5
    openvino: bool = False
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.PREDICTIONS)
    leaves: ClassVar[tuple[Product, ...]] = (Product.BENCHMARK,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.BENCHMARK,)
    minutes: ClassVar[float] = 0.6

    def check(self, context: Context) -> None:
        """Check that OpenVINO is there, where it is asked for."""
        if self.openvino:
            check_extra("openvino", "openvino: true")

    def write(self, context: Context, folder: Path, work: Path) -> dict[str, Any]:
        """Write the rows of `benchmark.json`, and all latencies."""
        evaluated, files = context.folder_with(Product.PREDICTIONS), measured_files(context)
        tests = {model: load_from_disk(str(evaluated / "inputs" / model)) for model in ("teacher", "student")}
        count = len(tests["teacher"])
        chosen = np.linspace(0, count - 1, min(self.sentences, count)).round().astype(int)
        inputs = {model: arrays_of(test.select(chosen)) for model, test in tests.items()}
        runners = {row: load_runner(row, file, context.threads) for row, file in files.items()}
        times = measure_latency(runners, inputs, self.rounds)
        results = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))
        rows = benchmark_rows(files, times, context.threads, {row: results["_".join(row)] for row in files})
        described = environment(context.threads, *["openvino"] * self.openvino)
        benchmark = json.dumps({"rows": rows, "environment": described}, indent=2)
        (folder / "benchmark.json").write_text(benchmark + "\n", encoding="utf-8")
        save_file({"_".join(row): values for row, values in times.items()}, folder / "latencies.safetensors")
        return {}

    def summary(self, context: Context) -> str:
        """Return the table of the rows."""
        return benchmark_summary(context)


def benchmark_summary(context: Context) -> str:
    """Return the table of a finished benchmark's rows."""
    file = context.folder_with(Product.BENCHMARK) / "benchmark.json"
    return summary_table(json.loads(file.read_text(encoding="utf-8")))
