"""What the comparisons on real tasks share: the tasks, a fine-tuned teacher for each, recipes that are run once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgemin_hf.recipe.runner import run_recipe
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.utils.atomic_files import write_atomic

TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
TASKS: dict[str, dict[str, Any]] = {
    "banking77": {"text_column": "sentence", "metric": "accuracy"},
    "sst2": {"text_column": "sentence", "metric": "accuracy"},
    "cola": {"text_column": "sentence", "metric": "matthews_correlation"},
    "rte": {"text_column": "sentence1", "text_pair_column": "sentence2", "metric": "accuracy"},
    "stsb": {"text_column": "sentence1", "text_pair_column": "sentence2", "metric": "spearmanr"},
}
LEARNING_RATES = {"cola": 1e-4}
"""Learning rates where 3e-4 is too high: at that, teacher and students answer with one class alone."""
MEASURED_ON = {"banking77": "test.tsv"}
"""The rows that a task is measured on, where they are not `dev.tsv`."""


@dataclass(frozen=True)
class RealTasks:
    """Recipes on real tasks, each run once: what is finished is not run again.

    Attributes:
        data: Folder that holds `tasks/NAME/train.tsv` and `dev.tsv` (BANKING77: `test.tsv`), as GLUE's tasks have them.
        output: Folder of the runs.
        rows: Training rows of a task, at most.
        teacher_steps: Steps that a task's teacher is fine-tuned for.
        learning_rates: By task, at which teacher and students learn; of any other task it is 3e-4.
    """

    data: Path
    output: Path
    rows: int
    teacher_steps: int
    learning_rates: Mapping[str, float] = field(default_factory=lambda: LEARNING_RATES)

    def recipe(self, task: str, stages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what the recipes of a task share; its validation rows are those that it is measured on."""
        dev = str(self.data.absolute() / "tasks" / task / MEASURED_ON.get(task, "dev.tsv"))
        label = "score" if task == "stsb" else "label"
        files = {"train_file": str(self._some_rows(task)), "validation_file": dev, "test_file": dev}
        settings = {**TASKS[task], **files, "label_column": label, "max_length": 128}
        return {"teacher": {"model": TEACHER}, "task": settings, "stages": stages}

    def _some_rows(self, task: str) -> Path:
        file = self.output.absolute() / "data" / f"{task}.tsv"
        if not file.is_file():
            header, *rows = (self.data / "tasks" / task / "train.tsv").read_text(encoding="utf-8").splitlines()
            chosen = sorted(np.random.default_rng(0).permutation(len(rows))[: self.rows])
            write_atomic(file, "\n".join([header, *(rows[index] for index in chosen)]) + "\n")
        return file

    def finetuned(self, task: str) -> Path:
        """Fine-tune the teacher on a task, once for all, and return its folder."""
        output = self.output / "teachers" / task
        stage = {"stage": "finetune", "max_steps": self.teacher_steps, "learning_rate": self.learning_rate(task)}
        run_once(self.recipe(task, [stage]), output, seed=0)
        return output / "teacher"

    def learning_rate(self, task: str) -> float:
        """Return the learning rate of a task, for teachers and students."""
        return self.learning_rates.get(task, 3e-4)

    def teacher_value(self, task: str) -> float:
        """Return the metric of a task's teacher."""
        return record_of(self.output / "teachers" / task, "finetune")["after"]

    def learn(self, name: str, task: str, stage: dict[str, Any], seed: int, **settings: Any) -> dict[str, Any]:
        """Run a stage that learns from the task's teacher, and return its record.

        Args:
            name: Name of the run.
            task: The task.
            stage: The stage's settings.
            seed: The recipe's seed.
            **settings: Further settings of the recipe, such as its student.
        """
        teacher, output = self.finetuned(task), self.output / "tasks" / f"{task}-{name}"
        recipe = {**self.recipe(task, [stage]), "teacher": {"model": str(teacher.absolute())}, **settings}
        # The teacher's predictions are the same for all runs of a task.
        logits = self.output / "teachers" / task / "cache"
        if logits.is_dir() and not (output / "cache").exists():
            shutil.copytree(logits, output / "cache")
        run_once(recipe, output, seed)
        if not logits.is_dir():
            shutil.copytree(output / "cache", logits)
        shutil.rmtree(output / "cache", ignore_errors=True)
        return record_of(output, stage["stage"])


def run_once(recipe: dict[str, Any], output: Path, seed: int) -> None:
    """Run a recipe whose last stage has not finished yet."""
    last = output / "stages" / f"{recipe['stages'][-1]['stage']}.json"
    if last.is_file() and json.loads(last.read_text(encoding="utf-8"))["finished"]:
        return
    output.mkdir(parents=True, exist_ok=True)
    path = output.with_suffix(".yaml")
    settings = {"name": output.name, "output_dir": str(output.absolute()), "seed": seed, **recipe}
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    loaded, plain = load_recipe(path)
    run_recipe(loaded, plain, path.parent)


def record_of(output: Path, stage: str) -> dict[str, Any]:
    """Read what a stage wrote down."""
    return json.loads((output / "stages" / f"{stage}.json").read_text(encoding="utf-8"))
