"""Is each stage worth its place? The quickstart without stage 1, with random pruning, and with other seeds.

    python benchmarks/ablations.py [--recipe recipes/quickstart.yaml] [--write docs/ablations.md]

Stages that a variant shares with the finished quickstart are taken over from it, not trained again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.runner import run_recipe
from edgemin_hf.recipe.schema import Recipe
from edgemin_hf.recipe.stages.prune import Prune
from edgemin_hf.recipe.yaml_file import load_recipe

# Name of a variant -> settings that it changes, and stages that it leaves out.
VARIANTS: dict[str, tuple[list[str], list[str]]] = {
    "quickstart": ([], []),
    "without stage 1": ([], ["distill"]),
    "random heads and neurons": (["prune.saliency=random"], []),
    "seed 1": (["seed=1"], []),
    "seed 2": (["seed=2"], []),
}
STUDENT_STAGES = ("distill", "prune", "quantize")


def main() -> None:
    """Run every variant and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/quickstart.yaml"))
    parser.add_argument("--write", type=Path, help="write the table into this Markdown file")
    options = parser.parse_args()
    base, _ = load_recipe(options.recipe)
    rows = []
    for name, (overrides, left_out) in VARIANTS.items():
        output = Path(base.output_dir) if name == "quickstart" else Path("runs/ablations") / name.replace(" ", "-")
        recipe, settings = load_recipe(options.recipe, [*overrides, f"output_dir={output}"])
        # Nobody reads a variant's report; its accuracy is measured with everything else.
        recipe.stages = [
            stage for stage in recipe.stages if stage.stage not in (*left_out, "benchmark", "rivals", "report")
        ]
        if name != "quickstart":
            take_over(base, recipe)
        run_recipe(recipe, settings, options.recipe.resolve().parent)
        rows.append(table_row(name, output))
    table = "\n".join([HEADER, *rows, "", right_after_removal(options.recipe)])
    print(table)
    if options.write:
        before, marker, _ = options.write.read_text(encoding="utf-8").partition(MARKER)
        options.write.write_text(f"{before}{marker}\n\n{table}\n", encoding="utf-8")


MARKER = "<!-- table: written by benchmarks/ablations.py -->"
HEADER = (
    "| run | teacher, test | "
    + " | ".join(f"{stage}, validation before → after" for stage in STUDENT_STAGES)
    + " | INT8 student, test [95%] | of the teacher |\n| --- | ---: |"
    + " ---: |" * (len(STUDENT_STAGES) + 2)
)


def right_after_removal(path: Path) -> str:
    """Measure the student of the quickstart when its heads and neurons are gone and nothing is trained since."""
    recipe, settings = load_recipe(path)
    context = Context(recipe, settings, path.resolve().parent, Path(recipe.output_dir))
    stage = next(stage for stage in recipe.stages if isinstance(stage, Prune))
    found = []
    for saliency in ("taylor", "random"):
        with tempfile.TemporaryDirectory() as work:
            trainer = replace(stage, saliency=saliency).trainer(context, Path(work))
            trainer.prepare()
            found.append(f"{saliency} {100 * trainer.evaluate()['eval_accuracy']:.2f}%")
    return f"Right after the removal, before any training, on validation: {', '.join(found)}."


def take_over(base: Recipe, recipe: Recipe) -> None:
    """Copy the leading stages that two recipes share, and the teacher's logits."""
    source, target = Path(base.output_dir), Path(recipe.output_dir)
    if target.exists() or base.seed != recipe.seed:
        return
    (target / "stages").mkdir(parents=True)
    shutil.copytree(source / "cache", target / "cache")
    for ours, theirs in zip(base.stages, recipe.stages, strict=False):
        if ours.settings() != theirs.settings() or ours.stage == "export":
            break
        shutil.copytree(source / ours.folder, target / ours.folder)
        shutil.copy(source / "stages" / f"{ours.name}.json", target / "stages")


def table_row(name: str, output: Path) -> str:
    """Format one variant's results."""
    results = read(output / "evaluate" / "results.json")
    teacher, student = results["teacher_pytorch_fp32"]["value"], results["student_onnxruntime_int8"]
    cells = [name, f"{100 * teacher:.2f}"]
    for stage in STUDENT_STAGES:
        record = output / "stages" / f"{stage}.json"
        if not record.is_file():
            cells.append("—")
            continue
        values = read(record)
        scale = 100 if values["metric"] == "accuracy" else 1
        cells.append(f"{scale * values['before']:.2f} → {scale * values['after']:.2f}")
    low, high = student["ci95"]
    cells += [f"{100 * student['value']:.2f} [{100 * low:.1f}, {100 * high:.1f}]", f"{student['value'] / teacher:.1%}"]
    return f"| {' | '.join(cells)} |"


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
