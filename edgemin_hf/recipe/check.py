"""The check of a recipe against its files and its teacher's shape, before any weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.data.tables import check_table
from edgemin_hf.export.onnx import check_exportable
from edgemin_hf.hub.checkpoints import load_config, resolve_checkpoint
from edgemin_hf.modeling.families import first_position, shape_of
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.modeling.surgery import check_prunable
from edgemin_hf.quantization.precision import precisions
from edgemin_hf.recipe.context import raw_text_source, student_configs
from edgemin_hf.recipe.schema import RawText, Recipe, RecipeError, model_name
from edgemin_hf.recipe.stages.settings import (
    Augment,
    Benchmark,
    Distill,
    Export,
    Prune,
    PruneVocabulary,
    Quantize,
    TaskStage,
)
from edgemin_hf.sensitivity.target_size import least_bytes
from edgemin_hf.training.pruning import check_schedule
from edgemin_hf.utils.extras import check_extra


def check_recipe(recipe: Recipe, root: Path) -> PretrainedConfig:
    """Check a recipe against its files and its teacher's configuration; loads no weights.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.

    Returns:
        The teacher's configuration.

    Raises:
        RecipeError: If a file, a column, or a shape is not possible.
    """
    if recipe.task is not None:
        with _prefix("task."):
            recipe.task.check(root)
    if recipe.raw_text is not None:
        _check_raw_text(recipe.raw_text, root)
    with _prefix("teacher.model: "):
        config = _load_teacher_config(recipe, root)
    _check_teacher(recipe, root, config)
    _check_shapes(recipe, root, config)
    return config


def _check_shapes(recipe: Recipe, root: Path, teacher: PretrainedConfig) -> None:
    """Check the student's and the assistant's shapes, and whether the methods can compare them with their teachers.

    Raises:
        RecipeError: If not.
    """
    with _prefix(""):
        assistant, student = student_configs(recipe, root, teacher)
    for stage in recipe.stages:
        with _prefix(f"{stage.stage}."):
            if getattr(stage, "teacher_layer", None) == "search" and (stage.stage != "distill" or recipe.task is None):
                raise ValueError("teacher_layer: search; allowed: a number; search in the stage distill beside a task")
            if isinstance(stage, Distill):
                pairs = {"assistant": (assistant or student, teacher), "distill": (student, assistant or teacher)}
                _check_methods(stage, *pairs.get(stage.stage, (student, teacher)))
            if isinstance(stage, TaskStage):
                _check_methods(stage, student, teacher)
            if isinstance(stage, Benchmark) and stage.openvino:
                check_extra("openvino", "openvino: true")
            if isinstance(stage, Export):
                check_exportable(student)
            if isinstance(stage, PruneVocabulary):
                TextFiles([root / file for file in stage.files], stage.text_column).check()
            if isinstance(stage, Augment):
                _check_augmentation(stage, recipe, root)
            pruning = stage if isinstance(stage, Prune) else getattr(stage, "pruning", None)
            if pruning is not None and pruning.uses_inc:
                check_extra("inc", f"saliency: {pruning.saliency}")
            if getattr(stage, "provider", None) == "inc":
                check_extra("inc", "provider: inc")
            if pruning is not None:
                check_prunable(student, heads=pruning.removes_heads, layers=pruning.layer_sparsity > 0)
                before = recipe.stages[: recipe.stages.index(stage) + 1]
                for quantize in (other for other in before if isinstance(other, Quantize)):
                    check_schedule(_as_quantized(student, recipe, quantize), pruning, quantize)
            if isinstance(stage, Quantize):
                precisions(_as_quantized(student, recipe, stage), stage)
                _check_target_size(_as_quantized(student, recipe, stage), recipe, stage)


def _as_quantized(student: PretrainedConfig, recipe: Recipe, quantize: Quantize) -> PreTrainedModel:
    """Build the student without weights, with as many layers as it will have when it is quantised."""
    config = unpruned(student)
    for stage in recipe.stages[: recipe.stages.index(quantize)]:
        if isinstance(stage, Prune):
            config.num_hidden_layers = stage.kept_layers(config.num_hidden_layers)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def _check_target_size(student: PreTrainedModel, recipe: Recipe, stage: Quantize) -> None:
    """Refuse what no precisions can meet; how small pruning makes the student first is not known yet."""
    pruned = any(isinstance(other, Prune) for other in recipe.stages[: recipe.stages.index(stage)])
    if stage.target_size_mb is None or pruned:
        return
    least = least_bytes(student, stage)
    if 1e6 * stage.target_size_mb < least:
        raise ValueError(
            f"target_size_mb: {stage.target_size_mb:g}; allowed: above {least / 1e6:.2f}, what weights and scales "
            "alone take in INT4"
        )


def _check_methods(stage: Distill | TaskStage, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    for method in (stage, *stage.also):
        check = getattr(method, "check", None)
        if check is not None:
            check(shape_of(student), shape_of(teacher))
    wants_head = isinstance(stage, Distill) and stage.method == "distilbert"
    if wants_head and not _has_masked_lm_head(teacher):
        raise ValueError(
            f"method: distilbert with a {', '.join(teacher.architectures or ['model'])} as teacher; "
            "allowed: a ...ForMaskedLM, whose masked-LM head it learns from"
        )


def _check_augmentation(stage: Augment, recipe: Recipe, root: Path) -> None:
    name = model_name(stage.model or recipe.teacher.model, root)
    config = AutoConfig.from_pretrained(resolve_checkpoint(name, weights=False).path)
    if not _has_masked_lm_head(config):
        raise ValueError(
            f"model: {stage.model or recipe.teacher.model}, a {', '.join(config.architectures or ['model'])}; "
            "allowed: a ...ForMaskedLM, which predicts words"
        )
    if stage.vectors is not None and not (root / stage.vectors).is_file():
        raise ValueError(f"vectors: {stage.vectors}, which is no file; allowed: a text file of word vectors")


def _has_masked_lm_head(config: PretrainedConfig) -> bool:
    return any(name.endswith("ForMaskedLM") for name in config.architectures or ())


def _check_raw_text(raw: RawText, root: Path) -> None:
    with _prefix("raw_text.files: " if raw.files else "raw_text.dataset: "):
        if raw.pack:
            raw_text_source(raw, root).check()
        else:
            for name in raw.files:
                check_table(root / name, raw.text_column)


def _load_teacher_config(recipe: Recipe, root: Path) -> PretrainedConfig:
    name = model_name(recipe.teacher.model, root)
    if Path(name).is_dir() and Path(name).absolute().is_relative_to(Path(recipe.output_dir).absolute()):
        raise ValueError(f"{recipe.teacher.model}, which lies in output_dir; allowed: a folder outside, or a Hub id")
    return load_config(name)


def _check_teacher(recipe: Recipe, root: Path, config: PretrainedConfig) -> None:
    lengths = {name: part.max_length for name, part in (("task", recipe.task), ("raw_text", recipe.raw_text)) if part}
    longest = config.max_position_embeddings - first_position(config)
    for name, length in lengths.items():
        if length > longest:
            raise RecipeError(f"{name}.max_length: {length}; allowed: 3 to {longest}, the teacher's positions")
    names = {stage.stage for stage in recipe.stages}
    if recipe.task is None or "finetune" in names or not names & {"task_distill", "prune", "quantize"}:
        return
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise RecipeError(
            f"teacher.model: {recipe.teacher.model}, which has no classification head; allowed without the stage "
            "finetune: a fine-tuned classifier"
        )
    task = recipe.task
    if not task.compatible(config):
        raise RecipeError(
            f"teacher.model: {recipe.teacher.model}, which has {config.num_labels} label(s) and problem_type "
            f"{config.problem_type}; allowed for {task.metric} without the stage finetune: {task.problem_type}"
        )
    missing = (
        [] if not task.compares_label_names else [label for label in task.labels(root) if label not in config.label2id]
    )
    if missing:
        raise RecipeError(
            f"task.label_column: label {missing[0]!r}, which the teacher does not know; allowed without the stage "
            f"finetune: {', '.join(list(config.label2id)[:5])}..."
        )


@contextmanager
def _prefix(prefix: str) -> Iterator[None]:
    """Turn a ValueError into a RecipeError with the field's path before it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{prefix}{error}") from None
