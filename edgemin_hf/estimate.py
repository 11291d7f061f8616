"""How long a recipe will take here: operations counted, this machine's speed measured for a moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig

from edgemin_hf.data import read_table
from edgemin_hf.encoder import Shape, shape_of
from edgemin_hf.recipe import Distill, Finetune, Prune, Quantize, Recipe, Training

# Fractions of the speed of a plain matrix product that training reaches, and seconds that AdamW takes for a
# parameter: both fitted to measured runs of recipes/quickstart.yaml. The estimate is meant to be right within two.
_EFFICIENCY = 0.35
_OPTIMIZER_SECONDS = 2.0e-9
_TOKENS_PER_CHARACTER = 0.28
_OTHER_MINUTES = {"export": 0.5, "evaluate": 0.7, "benchmark": 0.6, "report": 0.1}


@dataclass(frozen=True)
class Estimate:
    """What a stage will cost.

    Attributes:
        examples: Training examples that it will see; 0 for a stage that trains nothing.
        minutes: Time on this machine.
    """

    examples: int
    minutes: float


def flops_per_token(shape: Shape) -> float:
    """Counts the floating-point operations of one token's forward pass, products of weights alone."""
    layer = 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size
    return 2.0 * shape.num_hidden_layers * layer


def estimate_stages(
    recipe: Recipe, root: Path, teacher: PretrainedConfig, student: PretrainedConfig, bf16: bool, processes: int
) -> list[Estimate]:
    """Estimates every stage of a recipe.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        teacher: The teacher's configuration.
        student: The student's configuration.
        bf16: Whether training computes in bf16.
        processes: Number of processes that train together, on this machine's cores.

    Returns:
        An estimate a stage, in their order.
    """
    speed = _EFFICIENCY * _product_speed(torch.bfloat16 if bf16 else torch.float32)
    task_rows, task_tokens = _text_size([root / recipe.task.train_file], recipe.task.text_column)
    task_rows = round(task_rows * (1 - recipe.task.validation_share))
    estimates, current = [], shape_of(student)
    for stage in recipe.stages:
        if not isinstance(stage, Training):
            estimates.append(Estimate(0, _OTHER_MINUTES[stage.stage]))
            continue
        rows, tokens, extra = task_rows, task_tokens, 0.0
        if isinstance(stage, Distill) and recipe.raw_text is not None:
            rows, tokens = _text_size([root / f for f in recipe.raw_text.files], recipe.raw_text.text_column)
            extra = flops_per_token(shape_of(teacher))
        if isinstance(stage, Prune):
            pruning = stage.pruning(seed=0)
            # Heads count as a share of the attention's operations only, which the width of the FFN stands in for here.
            current = current._replace(intermediate_size=pruning.kept_neurons(current.intermediate_size))
        trained = shape_of(teacher) if isinstance(stage, Finetune) else current
        batch = stage.per_device_train_batch_size * stage.gradient_accumulation_steps * processes
        steps = stage.max_steps if stage.max_steps > 0 else stage.num_train_epochs * rows / batch
        parameters = trained.hidden_size * teacher.vocab_size + flops_per_token(trained) / 2
        rounding = 1.3 if isinstance(stage, Quantize) else 1.0
        compute = steps * batch * tokens * (3 * rounding * flops_per_token(trained) + extra) / speed
        seconds = compute + steps * parameters * _OPTIMIZER_SECONDS
        estimates.append(Estimate(round(steps * batch), seconds / 60))
    return estimates


def _text_size(files: list[Path], column: str) -> tuple[int, float]:
    """Returns the number of rows and their mean length in tokens, guessed from their characters."""
    texts = [text for file in files for text in read_table(file)[column]]
    return len(texts), 2 + _TOKENS_PER_CHARACTER * sum(map(len, texts)) / max(1, len(texts))


def _product_speed(dtype: torch.dtype) -> float:
    """Measures the operations a second of a matrix product of the sizes that training has."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.ones(512, 768, dtype=dtype, device=device) for _ in range(2))
    repeats = 20
    torch.mm(left, right.T)
    start = time.perf_counter()
    for _ in range(repeats):
        product = torch.mm(left, right.T)
    product.sum().item()
    return repeats * 2 * 512 * 512 * 768 / (time.perf_counter() - start)
