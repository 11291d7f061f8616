"""What all training stages share: the trainer, and a training that resumes from its last checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from math import ceil
from pathlib import Path

from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import (
    DataCollator,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from transformers.trainer import TRAINING_ARGS_NAME

from edgemin_hf.data.padding import PaddingCollator
from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.recipe.checkpoints import CheckpointMark, Resumed, TimedCheckpoints, last_checkpoint
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.early_stopping import EarlyStopping
from edgemin_hf.recipe.log_file import LOG, LogFile
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.progress import TrainingProgress
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.training_arguments import TrainingSettings, make_arguments, part_of
from edgemin_hf.recipe.training_curve import training_curve
from edgemin_hf.training.trainer import DistillationTrainer
from edgemin_hf.utils.atomic_files import atomic_folder


@plain_dataclass
class Parts:
    """What a stage's trainer is made of.

    Attributes:
        model: The student.
        tokenizer: Its tokenizer.
        methods: What it is trained for.
        train: Training examples.
        validation: Validation examples.
        teacher: The teacher that runs beside it; None where none does.
        collator: How batches are made; None pads.
        callbacks: What the collator needs of the Trainer.
        packed: Whether all examples have one length.
        fp32: Whether training computes in fp32 whatever the recipe's precision.
        compute_metrics: The task's metric, where the logits are read.
        condensed: What is kept of a batch's logits for it, by its labels; None keeps them.
        pruning: What is pruned in this training.
        quantization: How the student is, or gets, quantised in it.
        head_learning_rate: Learning rate of the head; None takes that of the last layer.
        layer_learning_rate_decay: What the learning rate is multiplied by for each layer further down.
        head_is_new: Whether the model's head is random yet.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    methods: list[DistillationConfig]
    train: Dataset
    validation: Dataset
    teacher: PreTrainedModel | None = None
    collator: DataCollator | None = None
    callbacks: list[TrainerCallback] = field(default_factory=list)
    packed: bool = False
    fp32: bool = False
    compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None
    condensed: Callable[[Tensor, Tensor], Tensor] | None = None
    pruning: PruningConfig | None = None
    quantization: QuantizationConfig | None = None
    head_learning_rate: float | None = None
    layer_learning_rate_decay: float = 1.0
    head_is_new: bool = False


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
    patience = stage.early_stopping_patience
    stopping = [] if patience is None else [EarlyStopping(patience)]
    whose, part = part_of(context, stage, work)
    telling = [TrainingProgress(context.line, stage.metric(context)), LogFile(context.output / LOG, whose, part)]
    saving = [CheckpointMark(), TimedCheckpoints(), Resumed(stage.name)]
    # Said either way: the stage before may have left the same model with its table frozen.
    parts.model.get_input_embeddings().requires_grad_(not stage.freeze_embeddings)
    try:
        trainer = DistillationTrainer(
            parts.model,
            parts.teacher,
            make_arguments(context, stage, work, packed=parts.packed, fp32=parts.fp32),
            distillation_config=parts.methods,
            pruning_config=parts.pruning,
            quantization_config=parts.quantization,
            head_learning_rate=parts.head_learning_rate,
            layer_learning_rate_decay=parts.layer_learning_rate_decay,
            train_dataset=parts.train,
            eval_dataset=parts.validation,
            processing_class=parts.tokenizer,
            data_collator=parts.collator or PaddingCollator(parts.tokenizer),
            compute_metrics=parts.compute_metrics,
            preprocess_logits_for_metrics=parts.condensed,
            callbacks=[*parts.callbacks, *saving, *telling, *stopping],  # a checkpoint is marked when all wrote theirs
        )
    except ValueError as error:  # such as how positions are scored
        raise RecipeError(f"{stage.name}: {error}") from error
    trainer.remove_callback(PrinterCallback)  # of dictionaries, which stands in for bars
    return trainer


def train(
    stage: TrainingSettings,
    trainer: DistillationTrainer,
    folder: Path,
    metric: str,
    *,
    prepare: Callable[[bool], Outcome] = lambda resumed: Outcome(),
    finish: Callable[[], tuple[str, ...]] = tuple,
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
        finish: What is to be done between the last step and the last validation; it returns notes.
        write_beside: Writes more files beside the model.

    Returns:
        The examples seen and the validation metric before and after, with what `prepare` returned.
    """
    checkpoint = last_checkpoint(Path(trainer.args.output_dir))
    try:
        trainer.plan_rows(checkpoint)
    except ValueError as error:  # such as of a run that goes on with other processes
        raise RecipeError(f"{stage.name}: {error}") from error
    # For quantisation the calibrated model: what post-training quantisation alone would give.
    before = trainer.evaluate()[f"eval_{metric}"]
    outcome = prepare(checkpoint is not None)
    if stage.max_steps:
        trainer.train(resume_from_checkpoint=checkpoint)
    else:
        trainer.prepare()
    notes = (*outcome.notes, *_stopped_early(trainer), *finish())
    after = trainer.evaluate()[f"eval_{metric}"]
    if PartialState().is_main_process:
        with atomic_folder(folder) as partial:
            trainer.save_model(str(partial))
            # The Trainer's pickled arguments: nothing reads them, and a model's folder holds no pickles.
            (partial / TRAINING_ARGS_NAME).unlink()
            write_beside(partial)
    seen, curve = _examples_seen(trainer), training_curve(trainer.state.log_history, metric, before)
    return replace(outcome, examples=seen, metric=metric, before=before, after=after, notes=notes, curve=curve)


def _stopped_early(trainer: DistillationTrainer) -> tuple[str, ...]:
    state = trainer.state
    early = 0 < state.global_step < state.max_steps
    return (f"stopped at step {state.global_step} of {state.max_steps}",) if early else ()


def _examples_seen(trainer: DistillationTrainer) -> int:
    rows = len(trainer.train_dataset)
    of_step: int = trainer.get_total_train_batch_size(trainer.args)
    epochs: int
    steps: int
    epochs, steps = divmod(trainer.state.global_step, ceil(rows / of_step))
    return epochs * rows + min(steps * of_step, rows)
