"""The check of a recipe's checkpoints: tokenizers that the stages can work with, weights that are there and fit."""

from __future__ import annotations

from pathlib import Path

from edgemin_hf.data.corpus import check_packable
from edgemin_hf.modeling.loading import check_checkpoint
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.errors import prefix
from edgemin_hf.recipe.schema import Product
from edgemin_hf.utils.weight_files import INDEX, WEIGHTS


def check_models(context: Context) -> None:
    """Check the checkpoints that a recipe names, by the heads of their files; load no weights.

    What lies on the Hub alone is checked when it has been downloaded, by `fetch_models`.

    Raises:
        RecipeError: If weights or a tokenizer won't do; the message begins with the field's name.
    """
    raw = context.recipe.raw_text
    if raw is not None and raw.pack and context.has_teacher:
        with prefix("teacher.model: "):
            check_packable(context.shapes.teacher_tokenizer)
    for field, name, revision in _named(context):
        folder = context.shapes.checkpoint(name, revision, weights=False).path
        if any((Path(folder) / file).is_file() for file in (WEIGHTS, INDEX)):
            _check_weights(context, field, folder)


def fetch_models(context: Context) -> None:
    """Find or download the checkpoints that the stages to do will load, and check them, before the first stage runs.

    Raises:
        RecipeError: As `check_models`.
    """
    makers = {"teacher.model": Product.TEACHER, "assistant.checkpoint": Product.ASSISTANT}
    for field, name, revision in _named(context):
        ensemble = field == "teacher.ensemble"  # of which every stage that learns the task learns
        product = Product.TASK_STUDENT if ensemble else makers.get(field, Product.STUDENT)
        readers = [stage for stage in context.recipe.stages if product in stage.leaves]
        if any(context.finished_record(stage) is None for stage in (readers if ensemble else readers[:1])):
            folder = context.shapes.checkpoint(name, revision).path
            _check_weights(context, field, folder)


def _check_weights(context: Context, field: str, folder: str) -> None:
    # Without fine-tuning the teacher's own head is used; all others may have been made for anything.
    as_it_is = field == "teacher.ensemble" or (field == "teacher.model" and context.maker(Product.TEACHER) is None)
    with prefix(f"{field}: "):
        check_checkpoint(folder, context.head, ignore_mismatched_sizes=not as_it_is)


def _named(context: Context) -> list[tuple[str, str, str | None]]:
    """Return the checkpoints that a recipe names, each with its field and its revision."""
    recipe = context.recipe
    shapes = {"assistant.checkpoint": recipe.assistant, "student.checkpoint": recipe.student}
    named = list[tuple[str, str, str | None]]()
    if recipe.teacher.model is not None:
        named.append(("teacher.model", recipe.teacher.model, recipe.teacher.revision))
    named += [("teacher.ensemble", model, None) for model in recipe.teacher.ensemble]
    for field, shape in shapes.items():
        if shape is not None and shape.checkpoint is not None:
            named.append((field, shape.checkpoint, shape.revision))
    return named
