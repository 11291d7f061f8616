"""The training stages of a recipe: fine-tuning, distillation, pruning and quantisation-aware training."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer import TRAINING_ARGS_NAME

from edgemin_hf.data.masking import EpochOfMasks, MaskedTokens
from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.neural_compressor.guest import write_inc_config
from edgemin_hf.neural_compressor.ptq import quantize_by_inc
from edgemin_hf.quantization.reconstruction import reconstruct
from edgemin_hf.recipe.context import Run
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.stages.settings import (
    Distill,
    DistillOnTask,
    Finetune,
    Prune,
    Quantize,
    TaskStage,
    Training,
    TrainingStage,
    methods_of,
)
from edgemin_hf.training.trainer import DistillationTrainer
from edgemin_hf.utils.atomic_files import atomic_folder, write_atomic

if TYPE_CHECKING:
    from neural_compressor import PostTrainingQuantConfig


class _CheckpointMark(TrainerCallback):
    """Mark a checkpoint as complete once all of it is written: a killed run goes on from the last one so marked."""

    name = "complete"

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()  # each process writes the state of its random numbers
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.name).touch()


def _last_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint, after deleting all others: a kill may have left half of them."""
    steps = {checkpoint: int(checkpoint.name.split("-")[1]) for checkpoint in work.glob("checkpoint-*")}
    complete = [checkpoint for checkpoint in steps if (checkpoint / _CheckpointMark.name).exists()]
    newest = max(complete, key=lambda checkpoint: steps[checkpoint], default=None)
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        for checkpoint in steps.keys() - {newest}:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    return None if newest is None else str(newest)


def train_stage(run: Run, stage: TrainingStage, folder: Path, work: Path) -> dict[str, Any]:
    """Run a training stage, from its last complete checkpoint if there is one.

    Args:
        run: The recipe at work.
        stage: The stage.
        folder: Where the trained model is to stand.
        work: Where its checkpoints are kept meanwhile.

    Returns:
        "examples" seen and the validation "metric" "before" and "after".
    """
    trainer = make_trainer(run, stage, work)
    inc_config = None
    if isinstance(stage, Quantize) and stage.quantized_by_inc:
        inc_config = _quantize_by_inc(stage, trainer)
    checkpoint = _last_checkpoint(work)
    metric = "loss" if isinstance(stage, Distill) else run.task.metric
    # For quantisation the calibrated model: what post-training quantisation alone would give.
    before = trainer.evaluate()[f"eval_{metric}"]
    notes = {}
    if isinstance(stage, Quantize) and stage.reconstruction is not None:
        notes = _reconstruct(run, stage, trainer, work, resumed=checkpoint is not None)
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
            if inc_config is not None:
                write_inc_config(partial, quantization=inc_config)
    return {"examples": _examples_seen(trainer), "metric": metric, "before": before, "after": after, **notes}


def _quantize_by_inc(stage: Quantize, trainer: DistillationTrainer) -> PostTrainingQuantConfig:
    """Quantise the trainer's student by Neural Compressor; returns what that was asked for.

    All processes do the same, on the same rows, drawn at random and put in the order of their lengths.
    """
    rows = _drawn(trainer.train_dataset, stage.calibration_examples, trainer.args.seed)
    lengths = [len(ids) for ids in rows["input_ids"]]
    rows = rows.select(sorted(range(len(rows)), key=lengths.__getitem__))
    loader = DataLoader(rows, trainer.args.train_batch_size, collate_fn=trainer.data_collator)
    try:
        return quantize_by_inc(trainer.model, stage, [filter_forward_inputs(trainer.model, batch) for batch in loader])
    except ValueError as error:
        raise RecipeError(f"{stage.stage}: {error}") from error


def _drawn(rows: Dataset, count: int, seed: int) -> Dataset:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.select(order[:count].tolist())


def _reconstruct(
    run: Run, stage: Quantize, trainer: DistillationTrainer, work: Path, *, resumed: bool
) -> dict[str, Any]:
    """Reconstruct a calibrated student, against the one that the stage began with, on training rows drawn at random.

    All processes do the same, on the same rows.

    Args:
        run: The recipe at work.
        stage: The stage, with settings of the reconstruction.
        trainer: Its trainer.
        work: Folder for what became of the modules.
        resumed: Whether a checkpoint brings the student, which was reconstructed before it.

    Returns:
        What is worth remembering: "reconstruction", the errors of each module, and "notes" that tell them.
    """
    assert stage.reconstruction is not None  # noqa: S101 - the caller's check
    config, file, model = stage.reconstruction.settings(run.recipe.seed), work / "reconstruction.json", trainer.model
    if not resumed:
        rows = _drawn(trainer.train_dataset, config.examples, config.seed)
        loader = DataLoader(rows, config.batch_size, collate_fn=trainer.data_collator)
        batches = (filter_forward_inputs(model, batch) for batch in loader)
        found = reconstruct(model, run.student(stage).to(model.device), batches, config)
        if PartialState().is_main_process:
            write_atomic(file, json.dumps([module._asdict() for module in found]))
    PartialState().wait_for_everyone()
    modules = json.loads(file.read_text(encoding="utf-8"))
    errors = [f"{module['name']} {module['before']:.1e} -> {module['after']:.1e}" for module in modules]
    return {"reconstruction": modules, "notes": [f"errors of the modules: {', '.join(errors)}"]}


def _examples_seen(trainer: DistillationTrainer) -> int:
    rows, of_step = len(trainer.train_dataset), trainer.get_total_train_batch_size(trainer.args)
    epochs, steps = divmod(trainer.state.global_step, ceil(rows / of_step))
    return epochs * rows + min(steps * of_step, rows)


def make_trainer(
    run: Run, stage: TrainingStage, work: Path, model: PreTrainedModel | None = None
) -> DistillationTrainer:
    """Build the trainer of a stage: its student as the stage before left it, its data and its settings.

    Args:
        run: The recipe at work.
        stage: The stage.
        work: Where its checkpoints are to be kept.
        model: The student, instead of what the stage before left.

    Returns:
        The trainer, nothing trained or removed yet.
    """
    collator: Any = DataCollatorWithPadding(run.tokenizer)
    callbacks: list[TrainerCallback] = [_CheckpointMark()]
    teacher, packed = None, False
    methods: list[DistillationConfig] = [TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)]
    if isinstance(stage, Finetune):
        train, validation = run.data
        set_seed(run.recipe.seed)
        # A head that the checkpoint brings for other labels is replaced.
        model = AutoModelForSequenceClassification.from_pretrained(
            run.base_folder, use_safetensors=True, ignore_mismatched_sizes=True, **run.labels
        )
    elif isinstance(stage, Distill):
        model, teacher, methods = model or run.student(stage), run.teacher(stage), methods_of(stage)
        train, validation = run.student_data if isinstance(stage, DistillOnTask) else run.raw_text
        packed = not isinstance(stage, DistillOnTask) and run.packs
        if packed:
            collator = default_data_collator  # all blocks have one length
        if stage.method == "distilbert":
            collator = MaskedTokens(run.tokenizer, seed=run.recipe.seed)
            callbacks.append(EpochOfMasks(collator))
    else:
        model, methods = model or run.student(stage), methods_of(stage)
        train, validation = run.data_with_teacher_logits
        if stage.also:
            teacher = run.load(run.teacher_folder)
    try:
        return DistillationTrainer(
            model,
            teacher,
            _training_arguments(run, stage, work, packed),
            distillation_config=methods,
            pruning_config=stage if isinstance(stage, Prune) else getattr(stage, "pruning", None),
            # What Neural Compressor quantises once is plain until then.
            quantization_config=None if getattr(stage, "quantized_by_inc", False) else run.quantized(stage),
            train_dataset=train,
            eval_dataset=validation,
            processing_class=run.tokenizer,
            data_collator=collator,
            compute_metrics=run.task.compute_metrics if isinstance(stage, Finetune | TaskStage) else None,
            callbacks=callbacks,
        )
    except ValueError as error:  # what only the models themselves tell, such as how they score positions
        raise RecipeError(f"{stage.stage}: {error}") from error


def _training_arguments(run: Run, stage: TrainingStage, work: Path, packed: bool) -> TrainingArguments:
    names = [field.name for field in fields(Training)]
    bf16 = run.bf16 and getattr(stage, "provider", None) != "inc"
    # TrainingArguments writes bf16 there and never takes it back: a stage in fp32 after one in bf16 would find it.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    return TrainingArguments(
        output_dir=str(work),
        **{name: getattr(stage, name) for name in names},
        per_device_eval_batch_size=64,
        group_by_length=not packed,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=run.recipe.seed,
        save_strategy="steps",
        # Two, so that the older is still complete while the newer is being written.
        save_total_limit=2,
        logging_steps=100,
        report_to=[],
    )
