"""The arguments of a recipe's training stages: which are settings, what is refused before weights are loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, ClassVar, Protocol, get_args, get_type_hints

import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from transformers import AutoModel, PretrainedConfig, TrainingArguments

from edgemin_hf.distillation.base import Method
from edgemin_hf.modeling.auto_class import AutoClass, new_model
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.recipe.context import GROUP_TIMEOUT, Context
from edgemin_hf.recipe.schema import STRICT, Count, Positive
from edgemin_hf.training.arguments import NOT_SET, check_reading
from edgemin_hf.utils.compat import group_by_length, tensorboard_folder, training_arguments

_OWN_ARGUMENTS = (
    "output_dir", "seed", "bf16", "fp16", "use_cpu", "no_cuda", "group_by_length", "save_strategy", "save_total_limit",
    "train_sampling_strategy",
    "eval_strategy", "load_best_model_at_end", "push_to_hub", "resume_from_checkpoint", "overwrite_output_dir",
    "do_train", "do_eval", "do_predict", "label_smoothing_factor", "label_names", "remove_unused_columns",
    "bf16_full_eval", "fp16_full_eval", "use_mps_device", "per_gpu_train_batch_size", "per_gpu_eval_batch_size",
    "prediction_loss_only", "batch_eval_metrics", "eval_do_concat_batches", "use_legacy_prediction_loop",
    "save_safetensors", "save_only_model", "save_on_each_node", "parallelism_config", "hub_model_id", "hub_strategy",
    "disable_tqdm", "report_to", "logging_dir", "run_name",
    "hub_token", "hub_private_repo", "hub_always_push", "hub_revision", "push_to_hub_model_id",
    "push_to_hub_organization", "push_to_hub_token",
)  # fmt: skip
"""Fields of `TrainingArguments` that the recipe decides on, beside those that are settings of a stage: what is trained
from, in which precision, what is measured and kept, who is told of it, and that nothing is published on the way."""
_NO_ARGUMENTS = ("training_arguments", "best_model", "early_stopping_patience", "freeze_embeddings")
"""Settings of a training that are no fields of `TrainingArguments`."""
_SET_BY_ARGUMENTS = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND")
"""Variables of the environment that `TrainingArguments` set, for good."""


@dataclass(config=STRICT)
class Training:
    """Settings that all training stages share, by their names in `transformers.TrainingArguments`.

    Attributes:
        num_train_epochs: Passes over the data.
        max_steps: Steps; above 0 they count instead of the epochs, and -1 goes by these.
        per_device_train_batch_size: Examples of a batch.
        gradient_accumulation_steps: Batches of a step.
        learning_rate: Peak; it falls linearly to 0.
        warmup_ratio: Share of the steps in which the rate rises.
        warmup_steps: Steps in which it rises; above 0 they count instead of the share.
        weight_decay: Of AdamW, likewise the next two.
        adam_beta2: Decay of the squares' running mean.
        adam_epsilon: What is added to their root.
        save_steps: Steps between checkpoints; there is one after every minute too.
        best_model: Whether each epoch is validated, and the model of the best one kept; not while units are pruned
            gradually.
        early_stopping_patience: Evaluations in a row without a new best model after which training stops, beside
            `best_model` alone; None never does.
        freeze_embeddings: Whether the table of the word pieces stays as it is: a small student's is most of what its
            optimizer writes in a step, and little of what a task needs.
        training_arguments: Any other field of `TrainingArguments` by its name, such as {max_grad_norm: 0.5,
            lr_scheduler_type: cosine}, but those that the recipe decides on, such as `seed`, `bf16`, `save_strategy` or
            `push_to_hub`. Where a method reads inside layers, neither `torch_compile` nor reentrant checkpointing.
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
    best_model: bool = False
    early_stopping_patience: Count | None = None
    freeze_embeddings: bool = False
    training_arguments: dict[str, object] = field(default_factory=dict)
    least_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.max_steps < self.least_steps and self.max_steps != -1:
            allowed = f"{self.least_steps} or more, or -1 to go by num_train_epochs"
            raise ValueError(f"max_steps: {self.max_steps}; allowed: {allowed}")
        if self.early_stopping_patience is not None and not self.best_model:
            raise ValueError(
                f"early_stopping_patience: {self.early_stopping_patience} beside best_model: false; allowed: beside "
                "best_model: true, which validates and knows the best one"
            )
        _check_arguments(self.training_arguments)
        check_rest(Training, self)

    def arguments(self) -> dict[str, object]:
        """Return these settings as arguments of `TrainingArguments`."""
        own = {f.name: getattr(self, f.name) for f in fields(Training) if f.name not in _NO_ARGUMENTS}
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


class TrainingSettings(Protocol):
    """What is asked of a training stage here."""

    name: str
    max_steps: int
    best_model: bool
    early_stopping_patience: int | None
    freeze_embeddings: bool
    training_arguments: dict[str, object]

    def metric(self, context: Context) -> str:
        """Return what validation measures."""
        ...

    def arguments(self) -> dict[str, object]:
        """Return its settings as arguments of `TrainingArguments`."""
        ...


def make_arguments(
    context: Context, stage: TrainingSettings, work: Path, *, packed: bool = False, fp32: bool = False
) -> TrainingArguments:
    """Make the `TrainingArguments` of a stage.

    Args:
        context: The recipe at work.
        stage: The stage.
        work: Where its checkpoints are to be kept.
        packed: Whether all examples have one length.
        fp32: Whether training computes in fp32 whatever the recipe's precision.

    Raises:
        ValueError: If they do not go together.
    """
    bf16 = context.bf16 and not fp32
    # TrainingArguments write bf16 there and never take it back: a stage in fp32 after one in bf16 would find it. So
    # would a stage after one with torch_compile.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    os.environ["ACCELERATE_DYNAMO_BACKEND"] = "no"
    defaults: dict[str, object] = {"per_device_eval_batch_size": 64, "logging_steps": 100}
    defaults["ddp_timeout"] = int(GROUP_TIMEOUT.total_seconds())
    whose, part = part_of(context, stage, work)
    told = {"report_to": context.recipe.report_to, "disable_tqdm": True}
    told |= {"run_name": " ".join([context.recipe.name, whose, *([part] if part else [])])}
    if context.recipe.report_to:
        told |= tensorboard_folder(context.output / "tensorboard" / whose / part)
    saved: dict[str, object] = {"save_strategy": "steps"}
    if stage.best_model:
        metric = stage.metric(context)
        saved = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
        saved |= {
            "metric_for_best_model": metric,
            "greater_is_better": metric != "loss" and context.task.metrics[0].greater_is_better,
        }
    arguments = TrainingArguments(
        output_dir=str(work),
        **training_arguments({**defaults, **stage.arguments()}),
        **({} if packed else group_by_length()),
        **saved,
        **told,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=context.recipe.seed,
        # Two, so that the older is still complete while the newer is being written.
        save_total_limit=2,
    )
    torch.set_num_threads(context.threads)  # which accelerate sets by itself where several processes are launched
    return arguments


def part_of(context: Context, stage: TrainingSettings, work: Path) -> tuple[str, str]:
    """Return the stage that a training is of, and what of it, such as "trial-2" of a search; "" where it is all.

    Args:
        context: The recipe at work.
        stage: The settings of the training, which have a name of their own in a search.
        work: Where its checkpoints are kept.
    """
    above = context.output / "work"
    if not work.is_relative_to(above):
        return stage.name, ""
    name, *parts = work.relative_to(above).parts
    return name, "/".join(part for part in parts[1:] if part != "checkpoints")


def check_training_arguments(
    context: Context,
    stage: TrainingSettings,
    methods: Sequence[Method] = (),
    configs: Sequence[PretrainedConfig] = (),
    head: AutoClass = AutoModel,
) -> None:
    """Refuse a stage's `training_arguments` that its training would refuse once its models are there; load none.

    Args:
        context: The recipe at work.
        stage: The stage.
        methods: The methods that compare student and teacher.
        configs: Configurations of the student and the teacher, where there are methods.
        head: The class of models that both are.

    Raises:
        ValueError: If they do not go together, or not with the methods.
    """
    if not stage.training_arguments:
        return
    with torch.device("meta"):
        models = [new_model(head, unpruned(config)) for config in configs]
        objectives = [method.objective(*map(Encoder, models)) for method in methods]
    before = {name: os.environ.get(name) for name in _SET_BY_ARGUMENTS}
    try:
        check_reading(make_arguments(context, stage, context.output / "work" / stage.name), objectives)
    except (ValueError, ImportError) as error:
        raise ValueError(f"training_arguments: {error}") from None
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
