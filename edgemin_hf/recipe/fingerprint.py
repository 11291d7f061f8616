"""What results depend on, by content: what makes a finished stage the same stage, or another one.

Where files lie, and when they were written, is no part of it; nor is the machine, whose threads and precision round
otherwise: that stands in the record beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgemin_hf.data.sources import files_of
from edgemin_hf.hub.checkpoints import checkpoint_files
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import Product, StageSettings, Student
from edgemin_hf.tasks.run_rows import task_settings
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.utils.content import sha256_of, sha256_of_files


def recipe_inputs(context: Context, stage: StageSettings) -> dict[str, object]:
    """Return what a stage's result depends on of the recipe itself, at the first stage that it matters to."""
    recipe, inputs = context.recipe, dict[str, object]()
    if not context.before(stage):
        if recipe.teacher.model is not None:
            inputs |= {"teacher": model_inputs(context, recipe.teacher.model, recipe.teacher.revision)}
        inputs |= {"seed": recipe.seed, "precision": recipe.precision}
        if recipe.task is not None:
            first, *more = [content(file) for file in recipe.task.train_paths(context.root)]
            inputs |= {"task": task_settings(recipe.task), "train_file": [first, *more] if more else first}
            if metrics := metric_inputs(recipe.task, context.root):
                inputs["metrics"] = metrics
            if (labels := recipe.task.labels(context.root)) != sorted(labels):
                inputs["labels"] = labels  # earlier versions ordered all of them as text
            if not recipe.task.holds_out:
                inputs["validation_file"] = content(recipe.task.path(context.root, "validation"))
    if Product.STUDENT in stage.leaves and context.maker(Product.STUDENT, before=stage) is None:
        inputs["student"] = student_inputs(context, recipe.student)
    return inputs


def metric_inputs(task: TableTask, root: Path) -> list[str]:
    """Return the content of each metric that lies in files of somebody's own, which its name does not tell."""
    paths = [root / metric.module for metric in task.metrics if metric.local is None]
    return [content(path) if path.is_file() else sha256_of_files(path.rglob("*.py")) for path in paths if path.exists()]


def task_distillation_inputs(context: Context) -> dict[str, object]:
    """Return what a student learns the task from, beside the teacher and the labelled rows."""
    teacher, task, inputs = context.recipe.teacher, context.task, dict[str, object]()
    if teacher.ensemble:
        inputs["ensemble"] = [model_inputs(context, model) for model in teacher.ensemble]
    if teacher.predictions is not None:
        inputs["predictions"] = content(context.root / teacher.predictions)
    if task.unlabelled_files:
        inputs["unlabelled_files"] = [content(file) for file in files_of(context.root, task.unlabelled_files)]
    return inputs


def raw_text_inputs(context: Context) -> dict[str, object]:
    """Return the raw text, by its content."""
    raw = context.recipe.raw_text
    assert raw is not None  # noqa: S101 - the order of the stages is checked
    contents: object = [content(context.root / file) for file in raw.files]
    if raw.pack:
        contents = raw.source(context.root).fingerprint()
    settings = {name: value for name, value in asdict(raw).items() if name not in ("files", "revision")}
    return {"raw_text": {**settings, "contents": contents}}


def model_inputs(context: Context, model: str, revision: str | None = None) -> dict[str, object]:
    """Return what tells a model from another: the commit of one on the Hub, the content of a folder's files."""
    found = context.shapes.checkpoint(model, revision, weights=False)
    if found.commit is not None:
        return {"model": model, "commit": found.commit}
    return {"content": sha256_of_files(checkpoint_files(Path(found.path)))}


def student_inputs(context: Context, student: Student) -> dict[str, object]:
    """Return what tells a student's beginning from another: its shape, and its checkpoint's files."""
    shape = {name: value for name, value in asdict(student).items() if name not in ("checkpoint", "revision")}
    if student.dropout is None:
        del shape["dropout"]  # earlier versions had no such setting
    if student.checkpoint is None:
        return shape
    return {**shape, "checkpoint": model_inputs(context, student.checkpoint, student.revision)}


def content(path: Path) -> str:
    """Return the hash of a file; its ending, which says how it is read, is part of it."""
    return f"{path.suffix}:{sha256_of(path)}"


def hashed(parts: Sequence[object]) -> str:
    """Return the hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
