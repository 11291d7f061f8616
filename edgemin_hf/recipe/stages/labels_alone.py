"""The rival that shows what distillation is worth: the student's shape, trained like it, but on the labels alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from accelerate import PartialState
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel

from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.task_distill import TaskDistill
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.graphs import made_of_graph


@dataclass(config=STRICT)
class LabelsAlone(TaskDistill):
    """A training like the recipe's stage `task_distill`, of a new student, with the labels' loss alone."""

    def student(self, context: Context) -> PreTrainedModel:
        """Return a student as the recipe's was when it began."""
        assistant = context.maker(Product.ASSISTANT)
        source = context.teacher_folder if assistant is None else context.folder(assistant)
        return context.new_student(context.recipe.student, context.load(source))


def training_on_labels(context: Context) -> LabelsAlone:
    """Return the training: with the settings of the recipe's first `task_distill`, else with its defaults."""
    like = next((stage for stage in context.recipe.stages if isinstance(stage, TaskDistill)), TaskDistill())
    settings = {**like.settings(), "soft_weight": 0.0, "hard_weight": 1.0, "also": []}
    training = TypeAdapter(LabelsAlone).validate_python(settings)
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
    model = train_on_labels(context, work)
    entry = export_baseline(model, folder, type(given.task)).entry("onnxruntime", "int8")
    assert entry is not None  # noqa: S101 - a baseline has it
    begin = "shape" if context.recipe.student.checkpoint is None else "checkpoint"
    name = f"student's {begin}, labels alone"
    return [made_of_graph(name, folder / entry.file, entry.precision, entry.bytes, given)]
