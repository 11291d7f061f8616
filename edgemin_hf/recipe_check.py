"""The check of a recipe against its files and its teacher's shape, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from edgemin_hf.data import check_table
from edgemin_hf.encoder import family_of, first_position, shape_of
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.pruning.surgery import check_prunable
from edgemin_hf.recipe import Distill, Prune, Recipe, RecipeError, student_shape, teacher_name
from edgemin_hf.student import student_config


def check_recipe(recipe: Recipe, root: Path) -> PretrainedConfig:
    """Checks a recipe against its files and its teacher's configuration; loads no weights.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.

    Returns:
        The teacher's configuration.

    Raises:
        RecipeError: If a file, a column, or a shape is not possible.
    """
    with _prefix("task."):
        recipe.task.check(root)
    for name in recipe.raw_text.files if recipe.raw_text else ():
        with _prefix("raw_text.files: "):
            check_table(root / name, recipe.raw_text.text_column)  # type: ignore[union-attr]
    with _prefix("teacher.model: "):
        config = _load_teacher_config(recipe, root)
    _check_teacher(recipe, root, config)
    with _prefix("student."):
        student = student_config(config, **student_shape(recipe.student))
    for stage in recipe.stages:
        with _prefix(f"{stage.stage}."):
            if isinstance(stage, Distill):
                stage.check(shape_of(student), shape_of(config))
            if isinstance(stage, Prune):
                check_prunable(student, heads=stage.head_sparsity > 0, neurons=stage.ffn_sparsity > 0)
    return config


def _load_teacher_config(recipe: Recipe, root: Path) -> PretrainedConfig:
    name = teacher_name(recipe, root)
    if Path(name).is_dir() and Path(name).absolute().is_relative_to(Path(recipe.output_dir).absolute()):
        raise ValueError(f"{recipe.teacher.model}, which lies in output_dir; allowed: a folder outside, or a Hub id")
    found = resolve_checkpoint(name, weights=False)
    try:
        config = AutoConfig.from_pretrained(found.path)
        AutoTokenizer.from_pretrained(found.path)
    except (OSError, TypeError, KeyError) as error:
        raise ValueError(f"{name}: its configuration or tokenizer can't be loaded ({error})") from None
    family_of(config)
    return config


def _check_teacher(recipe: Recipe, root: Path, config: PretrainedConfig) -> None:
    lengths = {"task": recipe.task.max_length} | ({"raw_text": recipe.raw_text.max_length} if recipe.raw_text else {})
    longest = config.max_position_embeddings - first_position(config)
    for name, length in lengths.items():
        if length > longest:
            raise RecipeError(f"{name}.max_length: {length}; allowed: 3 to {longest}, the teacher's positions")
    names = {stage.stage for stage in recipe.stages}
    if "finetune" in names or not names & {"task_distill", "prune", "quantize"}:
        return
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise RecipeError(
            f"teacher.model: {recipe.teacher.model}, which has no classification head; allowed without the stage "
            "finetune: a fine-tuned classifier"
        )
    missing = [label for label in recipe.task.labels(root) if label not in config.label2id]
    if missing:
        raise RecipeError(
            f"task.label_column: label {missing[0]!r}, which the teacher does not know; allowed without the stage "
            f"finetune: {', '.join(list(config.label2id)[:5])}..."
        )


@contextmanager
def _prefix(prefix: str) -> Iterator[None]:
    """Turns a ValueError into a RecipeError with the field's path before it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{prefix}{error}") from None
