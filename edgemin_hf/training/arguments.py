"""What a `DistillationTrainer` may be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from transformers import PreTrainedModel, TrainingArguments

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
        args: The Trainer's arguments, of which those for gradient checkpointing are set where they are not.
        others: What else the Trainer is given, by name.
        pruning: How the student is pruned.
        quantization: How it is quantised, in our words.

    Raises:
        ValueError: If something does not go with a `DistillationTrainer`.
    """
    if model is None or others.get("model_init") is not None:
        raise ValueError("model_init: given; allowed: model, whose layers are compared with the teacher's")
    if teacher is model:
        raise ValueError("teacher_model: the student itself; allowed: another model, since a teacher is frozen")
    if teacher is not None and teacher.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"model: a vocabulary of {model.config.vocab_size}; allowed: the teacher's, of {teacher.config.vocab_size}"
        )
    optimizers = others.get("optimizers")
    has_optimizer = isinstance(optimizers, Sequence) and optimizers[0] is not None
    if pruning is not None and has_optimizer:
        raise ValueError("optimizers: given beside pruning_config; allowed: none, since pruning replaces parameters")
    if quantization is not None and quantization.ranges == "learned" and has_optimizer:
        raise ValueError("optimizers: given beside ranges: learned; allowed: none, since it must know the ranges")
    if args.label_smoothing_factor or others.get("compute_loss_func") is not None:
        raise ValueError("label_smoothing_factor, compute_loss_func: given; allowed: the loss of distillation_config")
    if args.n_gpu > 1:
        raise ValueError(f"{args.n_gpu} GPUs in one process; allowed: one process a GPU, by `accelerate launch`")
    if args.gradient_checkpointing and not args.gradient_checkpointing_kwargs:
        # The other kind gives no gradient where the forward pass ends inside the model.
        args.gradient_checkpointing_kwargs = {"use_reentrant": False}
