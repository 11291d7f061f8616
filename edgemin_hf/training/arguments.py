"""What a `DistillationTrainer` may be given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from edgemin_hf.distillation.base import DistillationConfig, Objective
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig

if TYPE_CHECKING:
    from edgemin_hf.neural_compressor.guest import WeightPruningConfig


def check_arguments(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    args: TrainingArguments,
    others: Mapping[str, object],
    pruning: PruningConfig | WeightPruningConfig | None,
    quantization: QuantizationConfig | None,
) -> None:
    """Refuse what would silently train something else than was asked for.

    Args:
        model: The student.
        teacher: The teacher.
        args: The Trainer's arguments.
        others: What else the Trainer is given, by name.
        pruning: How the student is pruned.
        quantization: How it is quantised, in our words.

    Raises:
        ValueError: If something does not go with a `DistillationTrainer`.
    """
    if model is None or others.get("model_init") is not None:
        raise ValueError("model_init: given; allowed: model, whose layers are compared with the teacher's")
    for name, given in (("model", model), ("teacher_model", teacher)):
        if given is not None and not isinstance(given, PreTrainedModel):
            raise ValueError(
                f"{name}: {type(given).__name__}; allowed: a transformers model itself, not what torch.compile or "
                "another wrapper made of it"
            )
    if teacher is model:
        raise ValueError("teacher_model: the student itself; allowed: another model, since a teacher is frozen")
    if teacher is not None and teacher.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"model: a vocabulary of {model.config.vocab_size}; allowed: the teacher's, of {teacher.config.vocab_size}"
        )
    if others.get("compute_metrics") is not None and model is model.base_model:
        raise ValueError(f"compute_metrics: given for {type(model).__name__}; allowed: none, since it has no head")
    optimizers = others.get("optimizers")
    has_optimizer = isinstance(optimizers, Sequence) and optimizers[0] is not None
    if pruning is not None and has_optimizer:
        raise ValueError("optimizers: given beside pruning_config; allowed: none, since pruning replaces parameters")
    if quantization is not None and quantization.ranges == "learned" and has_optimizer:
        raise ValueError("optimizers: given beside ranges: learned; allowed: none, since it must know the ranges")
    if others.get("compute_loss_func") is not None:
        raise ValueError("compute_loss_func: given; allowed: none, since distillation_config is the loss")
    for name, instead in NOT_SET.items():
        if getattr(args, name, False):
            raise ValueError(f"{name}: {getattr(args, name)}; allowed: {instead}")
    if args.label_names is not None and set(args.label_names) != {"labels"}:
        raise ValueError(f"label_names: {args.label_names}; allowed: ['labels'], as losses and metrics know them")
    if args.n_gpu > 1:
        raise ValueError(f"{args.n_gpu} GPUs in one process; allowed: one process a GPU, by `accelerate launch`")


def methods_of(given: DistillationConfig | Sequence[DistillationConfig]) -> list[DistillationConfig]:
    """Return the settings of the methods that a Trainer is given: one's, or a list of several.

    Raises:
        ValueError: If they are something else, such as a mapping or the class itself.
    """
    configs = list(given) if isinstance(given, Sequence) else [given]
    odd = [config for config in configs if isinstance(config, type) or not hasattr(config, "objective")]
    if odd or not configs:
        found = repr(odd[0]) if odd else "none"
        raise ValueError(f"distillation_config: {found}; expected: a method's settings, such as MiniLMv2Config()")
    return configs


NOT_SET = {
    "label_smoothing_factor": "0, since distillation_config is the loss",
    "auto_find_batch_size": "false, since a step of fewer rows makes other steps; lower "
    "per_device_train_batch_size and raise gradient_accumulation_steps by as much",
    "fp16_full_eval": "false, since an evaluation would round the student's weights for good",
    "bf16_full_eval": "false, since an evaluation would round the student's weights for good",
    "jit_mode_eval": "false, since the loss is computed inside the student's forward pass",
    "use_legacy_prediction_loop": "false, since that loop knows no loss terms",
}
"""Fields of `TrainingArguments` that stay unset, by name, with what is allowed; not every version has all of them."""


def check_objectives(
    model: PreTrainedModel, teacher: PreTrainedModel | None, args: TrainingArguments, objectives: Sequence[Objective]
) -> None:
    """Refuse models in which tensors can't be read, and arguments as `check_reading`, where objectives read some.

    Args:
        model: The student.
        teacher: The teacher.
        args: The Trainer's arguments.
        objectives: What the student is trained for.

    Raises:
        ValueError: If tensors of such a model are read.
    """
    reads = check_reading(args, objectives)
    if reads.student and not args.gradient_checkpointing and any(map(_reentrant, model.modules())):
        raise ValueError(f"model: gradient checkpointing with use_reentrant true; allowed: with false, {_READ}")
    for name, given, read in (("model", model, reads.student), ("teacher_model", teacher, reads.teacher)):
        if given is not None and read and any(map(_compiled, given.modules())):
            raise ValueError(f"{name}: compiled; allowed: one that is not, {_READ}")


class _Reads(NamedTuple):
    """Whether tensors inside the student, and inside the teacher, are read."""

    student: bool
    teacher: bool


def check_reading(args: TrainingArguments, objectives: Sequence[Objective]) -> _Reads:
    """Refuse arguments by which models run so that tensors inside them can't be read, where objectives read some.

    Also set what goes with gradient checkpointing, where it is not set.

    Args:
        args: The Trainer's arguments.
        objectives: What the student is trained for.

    Returns:
        In which of the models they read some.

    Raises:
        ValueError: If models run so.
    """
    kwargs = args.gradient_checkpointing_kwargs
    if args.gradient_checkpointing:
        # Reentrant, the default of some versions, gives no gradient to what is recorded inside a layer.
        kwargs = {"use_reentrant": False, **(kwargs or {})}
        args.gradient_checkpointing_kwargs = args.activation_checkpointing_kwargs = kwargs
        if args.ddp_find_unused_parameters is None and not kwargs["use_reentrant"]:
            # Trainer would not look for them, and some methods leave parameters without a gradient.
            args.ddp_find_unused_parameters = True
    reads = _Reads(
        any(objective.student_activations for objective in objectives),
        any(objective.teacher_activations for objective in objectives),
    )
    if reads.student and args.gradient_checkpointing and kwargs["use_reentrant"]:
        raise ValueError(f"gradient_checkpointing_kwargs: {kwargs}; allowed: use_reentrant false, {_READ}")
    # TrainingArguments with torch_compile set it, for good; `accelerate launch` may, too.
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if any(reads) and (args.torch_compile or backend.lower() != "no"):
        backend = (args.torch_compile and args.torch_compile_backend) or backend
        raise ValueError(f"torch_compile, ACCELERATE_DYNAMO_BACKEND: {backend}; allowed: no, {_READ}")
    return reads


_READ = "since a method of distillation_config reads tensors inside its layers"


def _reentrant(module: nn.Module) -> bool:
    checkpoint = getattr(module, "_gradient_checkpointing_func", None)
    on = getattr(module, "gradient_checkpointing", False) and checkpoint is not None
    return on and bool(getattr(checkpoint, "keywords", {}).get("use_reentrant", True))


def _compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
