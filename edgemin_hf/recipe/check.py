"""The check of a recipe against its files and its models' shapes, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgemin_hf.data.tables import check_table
from edgemin_hf.modeling.families import first_position
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.models import check_models
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.stages.base import Stage


def check_recipe(context: Context, stages: Sequence[Stage]) -> None:
    """Check a recipe against its files and its models' configurations; load no weights.

    Args:
        context: The recipe at work.
        stages: Its stages.

    Raises:
        RecipeError: If a file, a column, or a shape is not possible.
    """
    recipe = context.recipe
    if recipe.task is not None:
        with _prefix("task."):
            recipe.task.check(context.root)
    _check_raw_text(context)
    with _prefix(""):
        _check_lengths(context)
        _ = context.shapes.assistant, context.shapes.student
        check_models(context)
    for stage in stages:
        with _prefix(f"{stage.name}."):
            stage.check(context)


def _check_raw_text(context: Context) -> None:
    raw = context.recipe.raw_text
    if raw is None:
        return
    with _prefix("raw_text.files: " if raw.files else "raw_text.dataset: "):
        if raw.pack:
            raw.source(context.root).check()
        else:
            for name in raw.files:
                check_table(context.root / name, raw.text_column)


def _check_lengths(context: Context) -> None:
    recipe, teacher = context.recipe, context.shapes.teacher
    longest = teacher.max_position_embeddings - first_position(teacher)
    for name, part in (("task", recipe.task), ("raw_text", recipe.raw_text)):
        if part is not None and part.max_length > longest:
            raise RecipeError(f"{name}.max_length: {part.max_length}; allowed: 3 to {longest}, the teacher's positions")


@contextmanager
def _prefix(prefix: str) -> Iterator[None]:
    """Turn a ValueError into a RecipeError with the field's path before it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{prefix}{error}") from None
