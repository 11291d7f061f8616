"""What quantisation costs in accuracy: ours, Neural Compressor's and Optimum's, trained and not, on real tasks. Tables.

    python benchmarks/quantization.py --data FOLDER [--tasks sst2 banking77] [--write docs/quantization.md]

all-MiniLM-L6-v2 is fine-tuned on each task. That fp32 model is quantised in every way; what is trained is trained for
as many steps, by distillation from the fp32 model. Each graph then predicts the measured rows in ONNX Runtime, one
text at a time. FOLDER is that of benchmarks/methods.py. Nothing is chosen on the rows that are measured. What is
finished is not run again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from real_tasks import RealTasks
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from edgemin_hf.benchmark.measure import predict
from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.export.graph import size_bytes
from edgemin_hf.export.onnx import export_baseline, export_onnx
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_quantized import INT8_GRAPH, QUANTIZED_GRAPHS
from edgemin_hf.export.ptq import quantize_static
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.metrics import value_of
from edgemin_hf.tasks.metrics.modules import statistic_of

LEARNING_RATES = {"sst2": 1e-4, "stsb": 1e-4, "rte": 5e-5}
FP32 = "fp32"
RESAMPLES = 2000
MARKER = "<!-- table: written by benchmarks/quantization.py -->"


class Variant(NamedTuple):
    """A way to quantise.

    Attributes:
        name: What the table calls it.
        settings: Settings of the stage `quantize`.
        trains: Whether the weights are trained with it, over several seeds.
    """

    name: str
    settings: dict[str, Any]
    trains: bool = True


_INT4 = {"weights": "int4", "embeddings": "int4"}
VARIANTS = [
    Variant("INT8 calibrated", {}, trains=False),
    Variant("INT8 calibrated, INC", {"provider": "inc"}, trains=False),
    Variant("INT8 reconstructed", {"reconstruction": {}}, trains=False),
    Variant("INT8 trained, native", {}),
    Variant("INT8 trained, native, learned ranges", {"ranges": "learned"}),
    Variant("INT8 trained, INC", {"provider": "inc"}),
    Variant("INT8, embeddings INT4, trained", {"embeddings": "int4"}),
    Variant("INT4 rounded", _INT4, trains=False),
    Variant("INT4 reconstructed", {**_INT4, "reconstruction": {}}, trains=False),
    Variant("INT4 trained", _INT4),
]


class Outcome(NamedTuple):
    """What a graph predicts, from one seed or several.

    Attributes:
        predictions: Labels or scores (seeds, rows).
        size_bytes: Size of the graph.
        seconds: What it took to make it; None where it comes for nothing.
    """

    predictions: np.ndarray
    size_bytes: int
    seconds: float | None


class Comparison:
    """A task's fp32 model and all that is made of it.

    Args:
        tasks: The tasks.
        task: Which one.
        steps: Training steps.
        seeds: Number of seeds.
        only_finished: Whether what is not finished is left out, not made.
    """

    def __init__(self, tasks: RealTasks, task: str, steps: int, seeds: int, only_finished: bool) -> None:
        self.tasks, self.task, self.steps, self.seeds = tasks, task, steps, seeds
        self.only_finished = only_finished
        self.teacher = tasks.finetuned(task)
        self.output = tasks.output / "graphs" / task
        self.context = context_of(tasks, task)
        test = self.context.task.test(self.context.root, self.context.tokenizer, self.context.label_ids)
        self.labels = np.array(test["labels"])
        self.inputs = [
            {name: np.array([value], dtype=np.int64) for name, value in row.items()}
            for row in test.remove_columns("labels")
        ]

    def baselines(self) -> dict[str, Outcome]:
        """Predict with the fp32 model and with Optimum's two post-training quantisations of it."""
        folder = self.output / "optimum"
        if not folder.is_dir():
            export_baseline(self.teacher, folder)
        static = self.output / "static.onnx"
        if not static.is_file():
            rows = self.context.task.train_table(self.context.root, 0).select(range(512))
            columns = [rows[column] for column in self.context.task.text_columns]
            texts = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
            config = AutoConfig.from_pretrained(self.teacher)
            quantize_static(folder / FP32_GRAPH, self.context.tokenizer, config, texts, static)
        graphs = {
            FP32: folder / FP32_GRAPH,
            "INT8 dynamic, Optimum": folder / INT8_GRAPH,
            "INT8 static, Optimum": static,
        }
        return {
            name: Outcome(self.predicted(name, graph)[None], size_bytes(graph), None) for name, graph in graphs.items()
        }

    def predicted(self, name: str, graph: Path) -> np.ndarray:
        """Predict the measured rows with a graph, once for all."""
        file = self._predictions(name)
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            logits = predict(OnnxRunner(graph, 1), self.inputs, f"{self.task}, {name}")
            save_file({"predictions": self.context.task.predictions(logits)}, file)
        return load_file(file)["predictions"]

    def _predictions(self, name: str) -> Path:
        return self.output / "predictions" / f"{file_name(name)}.safetensors"

    def outcome(self, variant: Variant) -> Outcome | None:
        """Make a variant from every seed, and predict with its graphs; None where nothing is there to predict."""
        steps = self.steps if variant.trains else 0
        stage = {"stage": "quantize", "max_steps": steps, "learning_rate": 5e-5, **variant.settings}
        found, sizes, seconds = [], [], []
        for seed in range(self.seeds if variant.trains else 1):
            name = file_name(f"{variant.name} {seed}")
            if self.only_finished and not self._predictions(name).is_file():
                continue
            record = self.tasks.learn(name, self.task, stage, seed)
            graph = self.output / name / QUANTIZED_GRAPHS[variant.settings.get("weights", "int8")]
            if not graph.is_file():
                context = context_of(self.tasks, self.task, name)
                texts = context.task.texts(context.root, 64, seed)
                student = context.trained(context.recipe.stages[0])
                export_onnx(student, self.context.tokenizer, self.output / name, texts=texts)
            found.append(self.predicted(name, graph))
            sizes.append(size_bytes(graph))
            seconds.append(record["seconds"])
            print(f"== {self.task} {name}: {100 * self.metric(found[-1]):.2f}", flush=True)
        return Outcome(np.stack(found), max(sizes), float(np.mean(seconds))) if found else None

    def metric(self, predictions: np.ndarray) -> np.ndarray:
        """Compute the task's metric of predictions (..., rows)."""
        rows = predictions.reshape(-1, predictions.shape[-1])
        values = [value_of(self.context.task.metrics[0], self.labels, one) for one in rows]
        return np.reshape(values, predictions.shape[:-1])

    def row(self, name: str, outcome: Outcome, whole: np.ndarray) -> str:
        """Format a row of the table; `whole` are the fp32 model's predictions (rows,)."""
        values, reference = self.metric(outcome.predictions), float(self.metric(whole))
        value = f"{100 * values.mean():.2f}"
        if len(values) > 1:
            value += f" ({100 * values.min():.2f} to {100 * values.max():.2f})"
        low, high = (0.0, 0.0) if name == FP32 else self.interval(outcome.predictions, whole)
        difference = "" if name == FP32 else f"{100 * (values.mean() - reference):+.2f} [{low:+.2f}, {high:+.2f}]"
        made = "" if outcome.seconds is None else f"{outcome.seconds:.0f}"
        share = f"{100 * values.mean() / reference:.1f}"
        return f"| {name} | {value} | {share} | {difference} | {outcome.size_bytes / 1e6:.1f} | {made} |"

    def interval(self, predictions: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
        """Return the 95% interval of the difference to fp32, times 100: a bootstrap over rows, paired."""
        drawn = np.random.default_rng(0).integers(0, len(whole), (RESAMPLES, len(whole)))
        weights = np.stack([np.bincount(rows, minlength=len(whole)) for rows in drawn]).astype(float)
        metric = self.context.task.metrics[0]
        ours, theirs = (
            np.mean([statistic_of(metric, self.labels, one)(weights) for one in side], axis=0)
            for side in (predictions, [whole])
        )
        low, high = np.percentile(100 * (ours - theirs), [2.5, 97.5])
        return float(low), float(high)


def context_of(tasks: RealTasks, task: str, name: str | None = None) -> Context:
    """Open the finished run of a task's variant; without a name that of its fp32 model."""
    output = tasks.output / "teachers" / task if name is None else tasks.output / "tasks" / f"{task}-{name}"
    recipe, settings = load_recipe(output.with_suffix(".yaml"))
    return Context(recipe, settings, output.parent, output)


def file_name(name: str) -> str:
    """Make a file's name of a variant's."""
    return name.replace(",", "").replace(" ", "-")


def main() -> None:
    """Run everything that is not finished, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = ["sst2", "banking77", "stsb", "rte"]
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    parser.add_argument("--output", type=Path, default=Path("runs/quantization"))
    parser.add_argument("--tasks", nargs="+", default=tasks, choices=tasks)
    parser.add_argument("--variants", nargs="+", default=[v.name for v in VARIANTS], help="those of the table")
    parser.add_argument("--rows", type=int, default=20000, help="training rows of a task, at most")
    parser.add_argument("--teacher-steps", type=int, default=1500, help="steps of fine-tuning, of 32 rows")
    parser.add_argument("--steps", type=int, default=300, help="steps of quantisation-aware training, of 32 rows")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of what is trained")
    parser.add_argument("--finished", action="store_true", help="make nothing: tables of what is finished")
    parser.add_argument("--write", type=Path, help="write the tables into this Markdown file")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    real = RealTasks(options.data, options.output, options.rows, options.teacher_steps, LEARNING_RATES)
    parts: list[str] = []
    for task in options.tasks:
        comparison = Comparison(real, task, options.steps, options.seeds, options.finished)
        made = {variant.name: comparison.outcome(variant) for variant in VARIANTS if variant.name in options.variants}
        outcomes = comparison.baselines() | {name: one for name, one in made.items() if one is not None}
        parts += table(comparison, outcomes)
    print("\n".join(parts))
    if options.write:
        before, marker, _ = options.write.read_text(encoding="utf-8").partition(MARKER)
        options.write.write_text("\n".join([f"{before}{marker}", *parts]).rstrip() + "\n", encoding="utf-8")


def table(comparison: Comparison, outcomes: dict[str, Outcome]) -> list[str]:
    """Return a task's table."""
    metric = comparison.context.task.metrics[0]
    head = f"| | {metric.title} {metric.unit} | % of fp32 | difference [95%, paired] | MB | seconds to make |"
    whole = outcomes[FP32].predictions[0]
    rows = [comparison.row(name, outcome, whole) for name, outcome in outcomes.items()]
    title = f"## {comparison.task}: {len(whole):,} rows"
    return ["", title, "", head, "| --- | ---: | ---: | ---: | ---: | ---: |", *rows]


if __name__ == "__main__":
    main()
