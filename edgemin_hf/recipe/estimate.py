"""How long a recipe will take here: operations counted, this machine's speed measured for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from transformers import AutoModel, PretrainedConfig

from edgemin_hf.data.tables import Text, read_table, values_of
from edgemin_hf.modeling.families import Shape, shape_of
from edgemin_hf.modeling.loading import empty_model
from edgemin_hf.recipe.schema import Recipe

# Fractions of the speed of a plain matrix product that training reaches, and seconds that AdamW takes for a
# parameter: both fitted to measured runs of recipes/quickstart.yaml. The estimate is meant to be right within two.
_EFFICIENCY = 0.35
_OPTIMIZER_SECONDS = 2.0e-9
_TOKENS_PER_CHARACTER = 0.28
_TOKENS_PER_DOCUMENT = 300
_CHARACTERS_PER_BYTE = {".zst": 3.2, ".parquet": 1.7}
_ROUNDING = 1.3
"""How much longer a pass with fake quantisation takes."""


@dataclass(frozen=True)
class ArtefactEstimate:
    """What an artefact will take.

    Attributes:
        sizes: Bytes of each of its files; those of the tokenizer are one, "tokenizer", and so are OpenVINO's.
        precision: Of the graph to deploy.
        tokens: Of the texts that `milliseconds` is of.
        milliseconds: Of a pass of that graph, batch 1, one thread.
        at_most: Whether a stage makes it smaller by a part that only its training tells.
    """

    sizes: Mapping[str, int]
    precision: str
    tokens: int
    milliseconds: float
    at_most: bool = False

    def __str__(self) -> str:
        """Tell it in two sentences."""
        sizes = ", ".join(f"{file} {size / 1e6:.1f}" for file, size in self.sizes.items())
        most = "at most " if self.at_most else ""
        size, graph = f"{most}about {sum(self.sizes.values()) / 1e6:.1f} MB", f"{self.precision.upper()} graph"
        latency = f"{most}about {self.milliseconds:.2g} ms here (one thread)"
        return f"Artefact: {size}: {sizes}. A guess: {latency} for a text of {self.tokens} tokens in its {graph}."


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


class TextSize(NamedTuple):
    """The number of examples of a text, and their mean length in tokens."""

    examples: int
    tokens: float


class Steps(Protocol):
    """The settings that tell how many examples a training sees."""

    num_train_epochs: float
    max_steps: int
    per_device_train_batch_size: int
    gradient_accumulation_steps: int


@dataclass(frozen=True)
class Work:
    """What a training runs.

    Attributes:
        trained: Configuration of the model that it trains.
        text: Size of the text that it reads.
        compared: Configuration of the teacher that runs beside it; None where none does.
        teacher_layers: Layers of that teacher which run; None for all.
        quantized: Whether the trained model rounds.
        more_steps: Steps before the training itself, in a search.
        more_flops: Operations of the trained model before the first step.
    """

    trained: PretrainedConfig
    text: TextSize
    compared: PretrainedConfig | None = None
    teacher_layers: int | None = None
    quantized: bool = False
    more_steps: int = 0
    more_flops: float = 0.0


def flops_per_token(shape: Shape) -> float:
    """Count the floating-point operations of one token's forward pass, products of weights alone."""
    layer = 4 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.intermediate_size
    return 2.0 * shape.num_hidden_layers * layer


def parameters_of(config: PretrainedConfig) -> int:
    """Count the parameters of the base model that a configuration describes; none are allocated."""
    return int(empty_model(AutoModel, config).num_parameters())


class Estimator:
    """Estimates what the stages of a recipe cost on this machine.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        bf16: Whether training computes in bf16.
        processes: Number of processes that share a training's rows, each as fast as this one.
    """

    def __init__(self, recipe: Recipe, root: Path, bf16: bool, processes: int) -> None:
        self.recipe, self.root, self.processes = recipe, root, processes
        self._dtype = torch.bfloat16 if bf16 else torch.float32

    @cached_property
    def speed(self) -> float:
        """Operations a second that training reaches here."""
        return _EFFICIENCY * _product_speed(self._dtype)

    @cached_property
    def task_text(self) -> TextSize:
        """Size of the task's training rows."""
        task = self.recipe.task
        assert task is not None  # noqa: S101 - the recipe's check
        return TextSize(*_size_of(task.texts_in(task.train_table(self.root, self.recipe.seed))))

    @cached_property
    def student_text(self) -> TextSize:
        """Size of the rows that a student learns the task from: those without labels are among them."""
        task, (rows, tokens) = self.recipe.task, self.task_text
        if task is None or not task.unlabelled_files:
            return self.task_text
        more, their_tokens = _size_of(task.texts_in(task.unlabelled_table(self.root)))
        return TextSize(rows + more, (rows * tokens + more * their_tokens) / (rows + more))

    @cached_property
    def raw_text(self) -> TextSize:
        """Size of the raw text."""
        raw = self.recipe.raw_text
        assert raw is not None  # noqa: S101 - the recipe's check
        if not raw.pack:
            tables = [read_table(self.root / file) for file in raw.files]
            return TextSize(*_size_of(str(text) for table in tables for text in values_of(table, raw.text_column)))
        if raw.dataset is not None:
            tokens: float = _TOKENS_PER_DOCUMENT * (raw.source(self.root).total or 0)
        else:
            sizes = {self.root / file: _CHARACTERS_PER_BYTE.get(Path(file).suffix, 1) for file in raw.files}
            tokens = _TOKENS_PER_CHARACTER * sum(path.stat().st_size * each for path, each in sizes.items())
        return TextSize(max(1, round(tokens / raw.max_length) - raw.validation_blocks), raw.max_length)

    def passes(self, flops: float) -> Estimate:
        """Estimate forward passes without training."""
        return Estimate(flops / self.speed / 60, flops=flops)

    def training(self, steps: Steps, work: Work) -> Estimate:
        """Estimate a training.

        Args:
            steps: The settings that tell how many examples it sees.
            work: What it runs.
        """
        rows, tokens = work.text
        batch, count = self._batch(steps), self._count(steps, rows)
        rounding = _ROUNDING if work.quantized else 1.0
        forward, teacher = flops_per_token(shape_of(work.trained)), 0.0
        if work.compared is not None:
            shape = shape_of(work.compared)
            if work.teacher_layers is not None:  # it runs no further
                shape = shape._replace(num_hidden_layers=work.teacher_layers)
            teacher = flops_per_token(shape)
        seen = count * batch * tokens
        flops = seen * (3 * forward + teacher) + work.more_flops
        compute = (seen * (3 * rounding * forward + teacher) + rounding * work.more_flops) / self.speed
        search = 1 + work.more_steps / max(1, count)
        flops, compute = flops * search, compute * search
        parameters = parameters_of(work.trained)
        # Each process takes its share of the rows, and all steps of its own optimizer.
        seconds = compute / self.processes + count * parameters * _OPTIMIZER_SECONDS
        return Estimate(seconds / 60, round(count * batch), shape_of(work.trained), parameters, flops)

    def steps(self, steps: Steps, rows: int) -> int:
        """Return how many steps a training on so many rows takes."""
        return ceil(self._count(steps, rows))

    def _count(self, steps: Steps, rows: int) -> float:
        return steps.max_steps if steps.max_steps >= 0 else steps.num_train_epochs * rows / self._batch(steps)

    def _batch(self, steps: Steps) -> int:
        return steps.per_device_train_batch_size * steps.gradient_accumulation_steps * self.processes


def _size_of(texts: Iterable[Text]) -> tuple[int, float]:
    """Return the number of texts, or pairs, and their mean length in tokens, guessed from their characters."""
    rows = sides = characters = 0
    for text in texts:
        parts = (text,) if isinstance(text, str) else text
        rows, sides, characters = rows + 1, sides + len(parts), characters + sum(map(len, parts))
    return rows, 1 + (sides + _TOKENS_PER_CHARACTER * characters) / max(1, rows)


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
