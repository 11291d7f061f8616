"""How long a recipe will take here: operations counted, this machine's speed measured for a moment."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModel, PretrainedConfig

from edgemin_hf.data.tables import read_table
from edgemin_hf.modeling.families import Shape, family_of, shape_of
from edgemin_hf.recipe.context import raw_text_source, student_configs
from edgemin_hf.recipe.schema import Recipe
from edgemin_hf.recipe.stages.methods import LayerSearch
from edgemin_hf.recipe.stages.settings import (
    Assistant,
    Augment,
    Distill,
    DistillOnTask,
    Finetune,
    Prune,
    Quantize,
    TrainingStage,
)

# Fractions of the speed of a plain matrix product that training reaches, and seconds that AdamW takes for a
# parameter: both fitted to measured runs of recipes/quickstart.yaml. The estimate is meant to be right within two.
_EFFICIENCY = 0.35
_OPTIMIZER_SECONDS = 2.0e-9
_TOKENS_PER_CHARACTER = 0.28
_TOKENS_PER_DOCUMENT = 300
_CHARACTERS_PER_BYTE = {".zst": 3.2, ".parquet": 1.7}
_OTHER_MINUTES = {"prune_vocabulary": 0.2, "export": 0.5, "evaluate": 0.7, "benchmark": 0.6, "report": 0.1}


@dataclass(frozen=True)
class Estimate:
    """What a stage will cost.

    Attributes:
        minutes: Time on this machine.
        examples: Training examples that it will see; 0 for a stage that trains nothing.
        shape: Shape of the model that it trains; None where it trains none.
        parameters: Its parameters, embeddings with them and task heads without.
        flops: Floating-point operations of all its products with weights, the teacher's among them.
    """

    minutes: float
    examples: int = 0
    shape: Shape | None = None
    parameters: int = 0
    flops: float = 0.0


def flops_per_token(shape: Shape) -> float:
    """Count the floating-point operations of one token's forward pass, products of weights alone."""
    layer = 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size
    return 2.0 * shape.num_hidden_layers * layer


def parameters_of(config: PretrainedConfig) -> int:
    """Count the parameters of the base model that a configuration describes; none are allocated."""
    with torch.device("meta"):
        return AutoModel.from_config(config).num_parameters()


def estimate_stages(
    recipe: Recipe, root: Path, teacher: PretrainedConfig, bf16: bool, processes: int
) -> list[Estimate]:
    """Estimate every stage of a recipe.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        teacher: The teacher's configuration.
        bf16: Whether training computes in bf16.
        processes: Number of processes that train together, on this machine's cores.

    Returns:
        An estimate a stage, in their order.
    """
    speed = _EFFICIENCY * _product_speed(torch.bfloat16 if bf16 else torch.float32)
    assistant, student = student_configs(recipe, root, teacher)
    sizes, estimates = dict[str, tuple[int, float]](), []
    for stage in recipe.stages:
        if isinstance(stage, Augment):
            rows, tokens = _size_of(recipe, root, "task")
            # Each token is masked alone, and its whole text read for it.
            flops = rows * tokens**2 * flops_per_token(shape_of(teacher))
            estimates.append(Estimate(flops / speed / 60, flops=flops))
            continue
        if not isinstance(stage, TrainingStage):
            estimates.append(Estimate(_OTHER_MINUTES[stage.stage]))
            continue
        if isinstance(stage, Prune):
            student = _pruned(student, stage)
        trained, compared = student, None
        if isinstance(stage, Finetune):
            trained = teacher
        elif isinstance(stage, Assistant):
            trained, compared = assistant or teacher, teacher
        elif isinstance(stage, Distill) or stage.also:
            compared = assistant if assistant and stage.stage == "distill" else teacher
        text = "raw_text" if isinstance(stage, Distill) and not isinstance(stage, DistillOnTask) else "task"
        if text not in sizes:
            sizes[text] = _size_of(recipe, root, text)
        estimates.append(_estimate(stage, trained, compared, sizes[text], processes, speed))
    return estimates


def _pruned(student: PretrainedConfig, stage: Prune) -> PretrainedConfig:
    pruned, family = copy.deepcopy(student), family_of(student)
    # Heads are left as they are, and so is what a budget will choose: a configuration's numbers can't tell it.
    setattr(pruned, family.ffn_width, stage.kept_neurons(getattr(student, family.ffn_width)))
    pruned.num_hidden_layers = stage.kept_layers(student.num_hidden_layers)
    return pruned


def _estimate(
    stage: TrainingStage,
    trained: PretrainedConfig,
    compared: PretrainedConfig | None,
    text: tuple[int, float],
    processes: int,
    speed: float,
) -> Estimate:
    rows, tokens = text
    batch = stage.per_device_train_batch_size * stage.gradient_accumulation_steps * processes
    steps = stage.max_steps if stage.max_steps >= 0 else stage.num_train_epochs * rows / batch
    rounding = 1.3 if isinstance(stage, Quantize) else 1.0
    forward = flops_per_token(shape_of(trained))
    teacher = 0.0
    if compared is not None:
        read = getattr(stage, "teacher_layer", None)  # the teacher runs no further
        shape = shape_of(compared)
        teacher = flops_per_token(shape._replace(num_hidden_layers=read) if isinstance(read, int) else shape)
    flops = steps * batch * tokens * (3 * forward + teacher)
    compute = steps * batch * tokens * (3 * rounding * forward + teacher) / speed
    if isinstance(stage, Quantize) and stage.reconstruction is not None:
        # Each module's steps go through its own layers alone: together they are those of the whole model.
        own = 3 * stage.reconstruction.steps * stage.reconstruction.batch_size * tokens * forward
        flops, compute = flops + own, compute + rounding * own / speed
    if isinstance(stage, Quantize) and stage.target_size_mb is not None:
        # Six matrices a layer, each in two precisions, for half a pass on average.
        own = 6 * shape_of(trained).num_hidden_layers * stage.calibration_examples * tokens * forward
        flops, compute = flops + own, compute + rounding * own / speed
    parameters = parameters_of(trained)
    if isinstance(stage, LayerSearch) and stage.teacher_layer == "search":
        tried = 2 * stage.search_steps * len(stage.layers_to_try(shape_of(compared or trained).num_hidden_layers))
        flops, compute = (value * (1 + tried / max(1, steps)) for value in (flops, compute))
    seconds = compute + steps * parameters * _OPTIMIZER_SECONDS
    return Estimate(seconds / 60, round(steps * batch), shape_of(trained), parameters, flops)


def _size_of(recipe: Recipe, root: Path, text: str) -> tuple[int, float]:
    """Return the number of examples and their mean length in tokens."""
    task, raw = recipe.task, recipe.raw_text
    if text == "task" and task is not None:
        rows, tokens = _text_size([root / task.train_file], *task.text_columns)
        return (rows if task.validation_file else round(rows * (1 - task.validation_share))), tokens
    assert raw is not None  # noqa: S101 - the recipe's check
    if not raw.pack:
        return _text_size([root / file for file in raw.files], raw.text_column)
    if raw.dataset is not None:
        tokens = _TOKENS_PER_DOCUMENT * (raw_text_source(raw, root).total or 0)
    else:
        characters = {root / file: _CHARACTERS_PER_BYTE.get(Path(file).suffix, 1) for file in raw.files}
        tokens = _TOKENS_PER_CHARACTER * sum(path.stat().st_size * per_byte for path, per_byte in characters.items())
    return max(1, round(tokens / raw.max_length) - raw.validation_blocks), raw.max_length


def _text_size(files: list[Path], *columns: str) -> tuple[int, float]:
    """Return the number of rows and their mean length in tokens, guessed from their characters."""
    tables = [read_table(file) for file in files]
    rows = sum(map(len, tables))
    characters = sum(len(text) for table in tables for column in columns for text in table[column])
    return rows, 1 + len(columns) + _TOKENS_PER_CHARACTER * characters / max(1, rows)


def _product_speed(dtype: torch.dtype) -> float:
    """Measure the operations a second of a matrix product of the sizes that training has."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.ones(512, 768, dtype=dtype, device=device) for _ in range(2))
    repeats = 20
    torch.mm(left, right.T)
    start = time.perf_counter()
    for _ in range(repeats):
        product = torch.mm(left, right.T)
    product.sum().item()
    return repeats * 2 * 512 * 512 * 768 / (time.perf_counter() - start)
