"""What all training stages share: their settings, the trainer, and a training that resumes from its last checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields, replace
from enum import Enum
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, get_args, get_type_hints

import torch
from accelerate import PartialState
from datasets import Dataset
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from transformers import (
    DataCollator,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer import TRAINING_ARGS_NAME

from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.recipe.checkpoints import CheckpointMark, Resumed, TimedCheckpoints, last_checkpoint
from edgemin_hf.recipe.context import GROUP_TIMEOUT, Context
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Positive, RecipeError
from edgemin_hf.training.arguments import NOT_SET
from edgemin_hf.training.trainer import DistillationTrainer
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.compat import group_by_length, training_arguments

_OWN_ARGUMENTS = (
    "output_dir", "seed", "bf16", "fp16", "use_cpu", "no_cuda", "group_by_length", "save_strategy", "save_total_limit",
    "train_sampling_strategy",
    "eval_strategy", "load_best_model_at_end", "push_to_hub", "resume_from_checkpoint", "overwrite_output_dir",
    "do_train", "do_eval", "do_predict", "label_smoothing_factor", "label_names", "remove_unused_columns",
    "bf16_full_eval", "fp16_full_eval", "use_mps_device", "per_gpu_train_batch_size", "per_gpu_eval_batch_size",
    "prediction_loss_only", "batch_eval_metrics", "eval_do_concat_batches", "use_legacy_prediction_loop",
    "save_safetensors", "save_only_model", "save_on_each_node", "parallelism_config", "hub_model_id", "hub_strategy",
    "hub_token", "hub_private_repo", "hub_always_push", "hub_revision", "push_to_hub_model_id",
    "push_to_hub_organization", "push_to_hub_token",
)  # fmt: skip
"""Fields of `TrainingArguments` that the recipe decides on, beside those that are settings of a stage: what is trained
from, in which precision, what is measured and kept, and that nothing is published on the way."""


@dataclass(config=STRICT)
class Training:
    """Settings that all training stages share, by their names in `transformers.TrainingArguments`.

    Attributes:
        training_arguments: Any other field of `TrainingArguments` that the recipe does not decide on, by name.
    """

    num_train_epochs: Positive = 3.0
    max_steps: int = -1
    per_device_train_batch_size: Count = 32
    gradient_accumulation_steps: Count = 1
    learning_rate: Positive = 2e-4
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.06
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    adam_epsilon: Positive = 1e-8
    save_steps: Count = 250
    training_arguments: dict[str, object] = field(default_factory=dict)
    least_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.max_steps < self.least_steps and self.max_steps != -1:
            allowed = f"{self.least_steps} or more, or -1 to go by num_train_epochs"
            raise ValueError(f"max_steps: {self.max_steps}; allowed: {allowed}")
        _check_arguments(self.training_arguments)
        check_rest(Training, self)

    def arguments(self) -> dict[str, object]:
        """Return these settings as arguments of `TrainingArguments`."""
        own = {f.name: getattr(self, f.name) for f in fields(Training) if f.name != "training_arguments"}
        return {**own, **self.training_arguments}


def check_rest(part: type, settings: object) -> None:
    """Run the next check after `part`: dataclasses call one `__post_init__`, settings are made of several."""
    check = getattr(super(part, settings), "__post_init__", None)
    if check is not None:
        check()


def _check_arguments(arguments: Mapping[str, object]) -> None:
    if not arguments:
        return
    own = {*_OWN_ARGUMENTS, *(f.name for f in fields(Training))}
    free = {f.name for f in fields(TrainingArguments) if f.init} - own
    hints = get_type_hints(TrainingArguments)
    for name, value in arguments.items():
        if name in own:
            raise ValueError(f"training_arguments.{name}: {value}; expected: the stage's or the recipe's own setting")
        if name in NOT_SET and value:
            raise ValueError(f"training_arguments.{name}: {value}; allowed: {NOT_SET[name]}")
        if name not in free:
            raise ValueError(f"training_arguments.{name}: {value}; allowed: {', '.join(sorted(free))}")
        try:
            # As JSON, where strict types still let text name a value of an enumeration.
            TypeAdapter(_named_values(hints[name])).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            word, what = "allowed" if first["type"] == "enum" else "expected", first["msg"]
            what = what.removeprefix("Input should be ")
            raise ValueError(f"training_arguments.{name}: {value}; {word}: {what}") from None


def _named_values(hint: type) -> type:
    """Return a field's enumeration alone, where `TrainingArguments` takes any text beside it; else its type."""
    named = (kind for kind in get_args(hint) if isinstance(kind, type) and issubclass(kind, Enum))
    return next(named, hint)


@plain_dataclass
class Parts:
    """What a stage's trainer is made of.

    Attributes:
        model: The student.
        methods: What it is trained for.
        train: Training examples.
        validation: Validation examples.
        teacher: The teacher that runs beside it; None where none does.
        collator: How batches are made; None pads.
        callbacks: What the collator needs of the Trainer.
        packed: Whether all examples have one length.
        fp32: Whether training computes in fp32 whatever the recipe's precision.
        compute_metrics: The task's metric, where the logits are read.
        pruning: What is pruned in this training.
        quantization: How the student is, or gets, quantised in it.
    """

    model: PreTrainedModel
    methods: list[DistillationConfig]
    train: Dataset
    validation: Dataset
    teacher: PreTrainedModel | None = None
    collator: DataCollator | None = None
    callbacks: list[TrainerCallback] = field(default_factory=list)
    packed: bool = False
    fp32: bool = False
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None
    pruning: PruningConfig | None = None
    quantization: QuantizationConfig | None = None


class TrainingSettings(Protocol):
    """What is asked of a training stage here."""

    name: str
    max_steps: int

    def arguments(self) -> dict[str, object]:
        """Return its settings as arguments of `TrainingArguments`."""
        ...


def make_trainer(context: Context, stage: TrainingSettings, work: Path, parts: Parts) -> DistillationTrainer:
    """Build the trainer of a stage, nothing trained or removed yet.

    Args:
        context: The recipe at work.
        stage: The stage.
        work: Where its checkpoints are to be kept.
        parts: What it is made of.

    Raises:
        RecipeError: If the parts do not fit together, which only the models themselves tell.
    """
    try:
        return DistillationTrainer(
            parts.model,
            parts.teacher,
            _training_arguments(context, stage, work, parts),
            distillation_config=parts.methods,
            pruning_config=parts.pruning,
            quantization_config=parts.quantization,
            train_dataset=parts.train,
            eval_dataset=parts.validation,
            processing_class=context.tokenizer,
            data_collator=parts.collator or DataCollatorWithPadding(context.tokenizer),
            compute_metrics=parts.compute_metrics,
            callbacks=[CheckpointMark(), TimedCheckpoints(), Resumed(stage.name), *parts.callbacks],
        )
    except ValueError as error:  # such as how positions are scored
        raise RecipeError(f"{stage.name}: {error}") from error


def _training_arguments(context: Context, stage: TrainingSettings, work: Path, parts: Parts) -> TrainingArguments:
    bf16 = context.bf16 and not parts.fp32
    # TrainingArguments write bf16 there and never take it back: a stage in fp32 after one in bf16 would find it. So
    # would a stage after one with torch_compile.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    os.environ["ACCELERATE_DYNAMO_BACKEND"] = "no"
    defaults: dict[str, object] = {"per_device_eval_batch_size": 64, "logging_steps": 100, "report_to": []}
    defaults["ddp_timeout"] = int(GROUP_TIMEOUT.total_seconds())
    arguments = TrainingArguments(
        output_dir=str(work),
        **training_arguments({**defaults, **stage.arguments()}),
        **({} if parts.packed else group_by_length()),
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=context.recipe.seed,
        save_strategy="steps",
        # Two, so that the older is still complete while the newer is being written.
        save_total_limit=2,
    )
    torch.set_num_threads(context.threads)  # which accelerate sets by itself where several processes are launched
    return arguments


def train(
    stage: TrainingSettings,
    trainer: DistillationTrainer,
    folder: Path,
    metric: str,
    *,
    prepare: Callable[[bool], Outcome] = lambda resumed: Outcome(),
    write_beside: Callable[[Path], None] = lambda folder: None,
) -> Outcome:
    """Train from the last complete checkpoint if there is one, and write the model.

    Args:
        stage: The stage.
        trainer: Its trainer.
        folder: Where the trained model is to stand.
        metric: What validation measures.
        prepare: What is to be done between the first validation and the first step; it is told whether a checkpoint
            brings a student for which that was done, and returns what is worth remembering.
        write_beside: Writes more files beside the model.

    Returns:
        The examples seen and the validation metric before and after, with what `prepare` returned.
    """
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    # For quantisation the calibrated model: what post-training quantisation alone would give.
    before = trainer.evaluate()[f"eval_{metric}"]
    outcome = prepare(checkpoint is not None)
    if stage.max_steps:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:
        trainer.prepare()
    after = trainer.evaluate()[f"eval_{metric}"]
    if PartialState().is_main_process:
        with atomic_folder(folder) as partial:
            trainer.save_model(str(partial))
            # The Trainer's pickled arguments: nothing reads them, and a model's folder holds no pickles.
            (partial / TRAINING_ARGS_NAME).unlink()
            write_beside(partial)
    return replace(outcome, examples=_examples_seen(trainer), metric=metric, before=before, after=after)


def drawn(rows: Dataset, count: int, seed: int) -> Dataset:
    """Return some rows, drawn at random, the same ones in all processes."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.select(order[:count].tolist())


def _examples_seen(trainer: DistillationTrainer) -> int:
    rows = len(trainer.train_dataset)
    of_step: int = trainer.get_total_train_batch_size(trainer.args)
    epochs: int
    steps: int
    epochs, steps = divmod(trainer.state.global_step, ceil(rows / of_step))
    return epochs * rows + min(steps * of_step, rows)
