"""Which saliency keeps most of a model's accuracy, at which sparsity, with and without training? A table and figures.

    python benchmarks/pruning.py --data FOLDER [--tasks sst2 banking77] [--write docs/pruning.md]

all-MiniLM-L6-v2 is fine-tuned on each task, then loses a quarter, a half and three quarters of its heads and
feed-forward neurons: in one shot, chosen by each saliency and by chance, and nothing more; then with as many steps of
distillation from the fine-tuned model after it; then, for one saliency of each kind, masked gradually while it learns.
FOLDER is that of benchmarks/methods.py. Nothing is chosen on the rows that are measured. What is finished is not run
again.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from real_tasks import RealTasks
from scipy.stats import binomtest

from edgemin_hf.report.curves import Curve, draw_curves

SPARSITIES = (0.25, 0.5, 0.75)
SALIENCIES = ("random", "magnitude", "gradient", "snip_momentum", "taylor", "taylor_weights", "fisher")
MARKER = "<!-- table: written by benchmarks/pruning.py -->"


class Variant(NamedTuple):
    """A way to prune.

    Attributes:
        name: What the table calls it.
        settings: Settings of the stage `prune`, apart from the shares.
        trains: Whether distillation follows.
    """

    name: str
    settings: dict[str, Any]
    trains: bool


VARIANTS = [
    *(Variant(saliency, {"saliency": saliency}, trains=False) for saliency in SALIENCIES),
    Variant("fisher, masks tuned", {"saliency": "fisher", "tune_masks": True}, trains=False),
    *(Variant(saliency, {"saliency": saliency}, trains=True) for saliency in SALIENCIES),
    Variant("taylor, cubic", {"saliency": "taylor", "schedule": "cubic"}, trains=True),
    Variant("snip_momentum, cubic", {"saliency": "snip_momentum", "schedule": "cubic"}, trains=True),
]


def measure(tasks: RealTasks, task: str, variant: Variant, sparsity: float, options: argparse.Namespace) -> float:
    """Prune a task's fine-tuned model, and return the metric."""
    shares = {"head_sparsity": sparsity, "ffn_sparsity": sparsity}
    steps = {"max_steps": options.steps if variant.trains else 0, "learning_rate": tasks.learning_rate(task)}
    name = f"{variant.name.replace(', ', '-').replace(' ', '-')}-{'trained' if variant.trains else 'once'}-{sparsity}"
    return tasks.learn(name, task, {"stage": "prune", **shares, **variant.settings, **steps}, seed=0)["after"]


def main() -> None:
    """Run everything that is not finished, and write the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tasks/")
    parser.add_argument("--output", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--tasks", nargs="+", default=["sst2", "banking77"], choices=["sst2", "banking77"])
    parser.add_argument("--rows", type=int, default=20000, help="training rows of a task, at most")
    parser.add_argument("--teacher-steps", type=int, default=1500, help="steps of fine-tuning, of 32 rows")
    parser.add_argument("--steps", type=int, default=200, help="steps of distillation after the removal, of 32 rows")
    parser.add_argument("--write", type=Path, help="write the tables into this Markdown file, the figures beside it")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tasks = RealTasks(options.data, options.output, options.rows, options.teacher_steps)
    values: dict[tuple[str, bool, str, float], float] = {}
    for task, variant, sparsity in product(options.tasks, VARIANTS, SPARSITIES):
        value = measure(tasks, task, variant, sparsity, options)
        values[task, variant.trains, variant.name, sparsity] = value
        print(f"== {task} {variant.name} {'trained' if variant.trains else 'one shot'} {sparsity}: {100 * value:.2f}")
    parts = [line for task in options.tasks for line in report(tasks, task, values, options)]
    print("\n".join(parts))
    if options.write:
        before, marker, _ = options.write.read_text(encoding="utf-8").partition(MARKER)
        options.write.write_text("\n".join([f"{before}{marker}", *parts]).rstrip() + "\n", encoding="utf-8")


def report(
    tasks: RealTasks, task: str, values: dict[tuple[str, bool, str, float], float], options: argparse.Namespace
) -> list[str]:
    """Return a task's table, and draw its two figures where there is a file to write."""
    unpruned, rows = tasks.teacher_value(task), rows_measured(tasks, task)
    table = ["| saliency | training | 25% | 50% | 75% |", "| --- | --- | ---: | ---: | ---: |"]
    pictures = []
    for trains, training, file in ((False, "none", "one_shot"), (True, f"{options.steps} steps", "trained")):
        names = [variant.name for variant in VARIANTS if variant.trains == trains]
        found = {name: [values[task, trains, name, sparsity] for sparsity in SPARSITIES] for name in names}
        for name, cells in found.items():
            table.append(f"| {name} | {training} | {' | '.join(cell(value, rows) for value in cells)} |")
        if options.write:
            picture = options.write.with_name(f"{options.write.stem}_{task}_{file}.svg")
            drawn = {name: cells for name, cells in found.items() if "cubic" not in name}  # they would hide the others
            picture.write_text(draw(drawn, unpruned, rows, f"{task}, training: {training}"), encoding="utf-8")
            pictures += [f"![{task}, training: {training}]({picture.name})", ""]
    return ["", f"## {task}: unpruned, {cell(unpruned, rows)} on {rows:,} rows", "", *table, "", *pictures]


def rows_measured(tasks: RealTasks, task: str) -> int:
    """Count the rows that a task is measured on."""
    file = Path(tasks.recipe(task, [])["task"]["validation_file"])
    return len(file.read_text(encoding="utf-8").splitlines()) - 1


def bounds(value: float, rows: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of an accuracy."""
    found = binomtest(round(value * rows), rows).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def cell(value: float, rows: int) -> str:
    """Format an accuracy and its interval, in percent."""
    low, high = bounds(value, rows)
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def draw(found: dict[str, list[float]], unpruned: float, rows: int, title: str) -> str:
    """Draw accuracy against sparsity, each saliency from the unpruned model on, with 95% intervals."""
    curves = []
    for index, (name, cells) in enumerate(found.items()):
        y = [unpruned, *cells]
        heights = [50 * (high - low) for low, high in (bounds(value, rows) for value in y)]
        shifted = [100 * sparsity + 0.4 * index for sparsity in (0.0, *SPARSITIES)]  # or intervals hide each other
        curves.append(Curve(name, shifted, [100 * value for value in y], heights))
    return draw_curves(curves, "heads and neurons removed (%)", "accuracy (%)", title)


if __name__ == "__main__":
    main()
