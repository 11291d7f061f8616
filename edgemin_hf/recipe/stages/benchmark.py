"""The stage `benchmark`: latency and size of every file, beside what it is worth."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from datasets import load_from_disk
from pydantic.dataclasses import dataclass as settings
from safetensors.numpy import save_file

from edgemin_hf.benchmark import rows
from edgemin_hf.benchmark.alone import measured_alone
from edgemin_hf.benchmark.latencies import Asked, Latencies, measure_latencies
from edgemin_hf.benchmark.measure import arrays_of, benchmark_rows
from edgemin_hf.benchmark.rows import Score
from edgemin_hf.benchmark.whole_call import runs
from edgemin_hf.neural_compressor.optimum_pipelines import optimum_call
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Product
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.stages.evaluate import measured_files
from edgemin_hf.report.page import summary_table
from edgemin_hf.utils.cpus import waiting_as_before, waits_passively
from edgemin_hf.utils.extras import check_extra
from edgemin_hf.utils.hardware import environment


@settings(config=STRICT)
class Benchmark(WritingStage):
    """Measure latency on test sentences, batch 1, without padding, and what a process costs that runs the result alone.

    Attributes:
        sentences: Number of sentences, evenly spaced in the test set.
        rounds: Counted rounds over these sentences.
        threads: Threads of a pass.
        openvino: Whether the graphs are measured in OpenVINO too, and by the stage `evaluate` their predictions.

    Example:
        >>> from edgemin_hf.recipe.stages import Benchmark
        >>> Benchmark(sentences=100).settings()
        {'stage': 'benchmark', 'sentences': 100, 'rounds': 5, 'threads': 1, 'openvino': False}
    """

    stage: Literal["benchmark"] = "benchmark"
    sentences: Count = 500
    rounds: Count = 5
    threads: Count = 1
    openvino: bool = False
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.PREDICTIONS)
    leaves: ClassVar[tuple[Product, ...]] = (Product.BENCHMARK,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.BENCHMARK,)
    minutes: ClassVar[float] = 0.6

    def check(self, context: Context) -> None:
        """Check that OpenVINO is there, where it is asked for."""
        if self.openvino:
            check_extra("openvino", "openvino: true", "openvino")

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write the rows of `benchmark.json`, and all latencies."""
        evaluated, files = context.folder_with(Product.PREDICTIONS), measured_files(context)
        tests = {model: load_from_disk(str(evaluated / "inputs" / model)) for model, *_ in files}
        count = len(tests["student"])
        chosen = np.linspace(0, count - 1, min(self.sentences, count)).round().astype(int)
        inputs = {model: arrays_of(test.select(chosen)) for model, test in tests.items()}
        texts = list(context.task.texts_in(context.task.table(context.root, "test")))
        shown = [
            texts[row] for row in np.linspace(0, len(texts) - 1, min(self.sentences, len(texts))).round().astype(int)
        ]
        artefact = context.folder_with(Product.GRAPHS) / "student"
        head = context.task.auto_class
        asked = Asked(files, inputs, artefact, shown, head, self.threads, self.rounds, optimum_call)
        found = _measured_apart(asked) if waits_passively() else measure_latencies(asked)
        alone = measured_alone(artefact, self.threads, shown) if runs(artefact) else None
        results = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))
        scores = {row: Score.from_dict(results["_".join(row)]) for row in files}
        described = environment(self.threads, *sorted({row[1] for row in files} & {"openvino"}))
        measured = benchmark_rows(files, found.passes, self.threads, scores, found.calls)
        benchmark = rows.Benchmark(measured, described, found.by_length, alone)
        content = json.dumps(benchmark.to_dict(), indent=2)
        (folder / "benchmark.json").write_text(content + "\n", encoding="utf-8")
        save_file({"_".join(row): values for row, values in found.passes.items()}, folder / "latencies.safetensors")
        return Outcome()

    def summary(self, context: Context) -> str:
        """Return the table of the rows."""
        return summary_table(read_benchmark(context))


def _measured_apart(asked: Asked) -> Latencies:
    """Measure in a process of its own, whose threads spin: how they wait can't be changed where PyTorch is at work."""
    with waiting_as_before(), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure_latencies, asked).result()


def read_benchmark(context: Context) -> rows.Benchmark:
    """Read the rows of a finished benchmark."""
    file = context.folder_with(Product.BENCHMARK) / "benchmark.json"
    return rows.Benchmark.from_dict(json.loads(file.read_text(encoding="utf-8")))
