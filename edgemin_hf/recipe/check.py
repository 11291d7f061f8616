"""The check of a recipe against its files and its models' shapes, before any weights are loaded."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from edgemin_hf.data.tables import check_table
from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.modeling.families import first_position
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.errors import RecipeError, prefix
from edgemin_hf.recipe.models import check_models
from edgemin_hf.recipe.raw_rows import CACHE
from edgemin_hf.recipe.schema import Product
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.labels import labels_of
from edgemin_hf.utils.atomic_files import check_writable_folder


def check_recipe(context: Context, stages: Sequence[Stage]) -> list[str]:
    """Check a recipe against its files and its models' configurations; load no weights.

    Args:
        context: The recipe at work.
        stages: Its stages.

    Returns:
        Lines on what is worth knowing of the data.

    Raises:
        RecipeError: If a file, a column, or a shape is not possible.
    """
    recipe = context.recipe
    notes: list[str] = []
    _check_trackers(recipe.report_to)
    if recipe.task is not None:
        with prefix("task."):
            notes += recipe.task.check(context.root, _labels_of_teacher(context, recipe.task))
    _check_raw_text(context)
    with prefix(""):
        _check_lengths(context)
        check_models(context)
        if recipe.task is not None:
            notes += [
                f"{name}: {count:,} row(s) cut at {recipe.task.max_length} tokens"
                for name, count in context.cut_rows.items()
            ]
        _check_reading(context)
    if recipe.task is not None:
        with prefix("task."):
            recipe.task.configure(copy.copy(context.shapes.student))
    for stage in stages:
        with prefix(f"{stage.name}."):
            stage.check(context)
    return [*notes, *_note_on_outputs(context, stages)]


def _check_trackers(names: Sequence[str]) -> None:
    """Check that what trainings are to report to is known and installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise RecipeError(f"report_to: {name}; allowed: {', '.join(sorted(INTEGRATION_TO_CALLBACK))}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise RecipeError(f"report_to: {name}, which can't be used here ({error}); expected: installed") from None


def _note_on_outputs(context: Context, stages: Sequence[Stage]) -> list[str]:
    """Return how much disk the teacher's outputs take, where they are kept for each token."""
    task = context.recipe.task
    if (
        task is None
        or not task.ragged
        or task.teacher_beside
        or not any(stage.settings().get("soft_weight") for stage in stages)
    ):
        return []
    texts = context.estimator.task_text
    if task.holds_out:
        rows = texts.examples / (1 - task.validation_share)
    else:
        rows = texts.examples + len(task.table(context.root, "validation"))
    more = context.estimator.student_text
    tokens = rows * texts.tokens + more.examples * more.tokens - texts.examples * texts.tokens
    size = tokens * max(len(context.label_ids), 2) * np.dtype(np.float16).itemsize
    return [f"the teacher's outputs for each token: up to about {size / 1e6:.1f} MB in {context.output / 'cache'}"]


def _labels_of_teacher(context: Context, task: Task) -> Mapping[str, int] | None:
    """Return the labels of a teacher for the task that is not fine-tuned; None where there is no such teacher."""
    if context.maker(Product.TEACHER) is not None or not context.has_teacher:
        return None
    with prefix(""):
        config = context.shapes.teacher
    fits = configured_for(config, task.auto_class) and task.compatible(config)
    with prefix("teacher.model: "):
        return labels_of(config) if fits else None


def _check_reading(context: Context) -> None:
    """Check that the models' tokenizers can read the task's examples, and that the student's head can be as asked."""
    task, student = context.recipe.task, context.recipe.student
    if task is None:
        return
    if context.has_teacher:
        with prefix("teacher.model: "):
            task.fitted(context.shapes.teacher_tokenizer)
    with prefix("student.checkpoint: "):
        task.fitted(context.shapes.tokenizer)
    if task.ragged and student.head != "auto":
        raise RecipeError(f"student.head: {student.head} for {task.type}, which reads every token; allowed: auto")


def _check_raw_text(context: Context) -> None:
    raw = context.recipe.raw_text
    if raw is None:
        return
    with prefix("raw_text.files: " if raw.files else "raw_text.dataset: "):
        if raw.pack:
            raw.source(context.root).check()
            with prefix("HF_HOME: "):
                check_writable_folder(CACHE)
        else:
            for name in raw.files:
                check_table(context.root / name, raw.text_column)


def _check_lengths(context: Context) -> None:
    """Check that every model has positions for the texts that it is to read."""
    recipe, shapes = context.recipe, context.shapes
    models = {"the teacher": shapes.teacher} if context.has_teacher else {}
    models |= {} if shapes.assistant is None else {"the assistant": shapes.assistant}
    models["the student"] = shapes.student
    beside = dict(zip(recipe.teacher.ensemble, shapes.ensemble, strict=True))
    for name, part, readers in (("task", recipe.task, models | beside), ("raw_text", recipe.raw_text, models)):
        positions = {whose: read.max_position_embeddings - first_position(read) for whose, read in readers.items()}
        whose = min(positions, key=positions.__getitem__)
        if part is not None and part.max_length > positions[whose]:
            allowed = f"3 to {positions[whose]}, {whose}'s positions"
            raise RecipeError(f"{name}.max_length: {part.max_length}; allowed: {allowed}")
