"""The rival that shows what distillation is worth: the student's shape, trained like it, but on the labels alone."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

from accelerate import PartialState

from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.stages.task_distill import TaskDistill
from edgemin_hf.recipe.stages.training import TaskStage
from edgemin_hf.recipe.training_arguments import Training
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.graphs import made_of_graph


def training_on_labels(context: Context) -> TaskDistill:
    """Return the training of a new student: with the arguments of the recipe's first training on the task.

    But for its schedule: a rate that is constant there falls in a later stage, which this one does not have.
    """
    trained = (stage for stage in context.recipe.stages if isinstance(stage, TaskStage) and stage.max_steps)
    like = next(trained, TaskDistill())
    if not isinstance(like, TaskDistill):
        like = TaskDistill(**{part.name: getattr(like, part.name) for part in fields(Training)})
    arguments = dict(like.training_arguments)
    if str(arguments.get("lr_scheduler_type")).startswith("constant"):
        del arguments["lr_scheduler_type"]
    training = replace(like, soft_weight=0.0, hard_weight=1.0, also=[], training_arguments=arguments)
    training.name = "rivals.labels_alone"  # which no stage of a recipe can have: nothing was before it
    return training


def train_on_labels(context: Context, work: Path) -> Path:
    """Train it, in all processes together, and return its folder; one that was killed begins anew, to be timed."""
    state = PartialState()
    if state.is_main_process:
        shutil.rmtree(work, ignore_errors=True)
    state.wait_for_everyone()
    training_on_labels(context).run(context, work / "model", work)
    return work / "model"


def labels_alone(context: Context, work: Path, given: Given, folder: Path) -> list[Made]:
    """Train it, and quantise it as anybody would in a minute."""
    entry = export_baseline(train_on_labels(context, work), folder, type(given.task)).entry("onnxruntime", "int8")
    assert entry is not None  # noqa: S101 - a baseline has it
    begin = "shape" if context.recipe.student.checkpoint is None else "checkpoint"
    name = f"student's {begin}, labels alone"
    return [made_of_graph(name, folder / entry.file, entry.precision, entry.bytes, given)]
