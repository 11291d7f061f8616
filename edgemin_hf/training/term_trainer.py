"""A Trainer whose loss is the sum of a student's loss terms, each logged and evaluated by its name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from edgemin_hf.data.padding import COUNTED, TEACHER_LOGITS, TEACHER_ROW
from edgemin_hf.distillation.base import Objective
from edgemin_hf.modeling.hooks import filter_forward_inputs, forward_names
from edgemin_hf.training.checks import check_rows
from edgemin_hf.training.row_trainer import RowTrainer
from edgemin_hf.training.rows import ROW_WEIGHT
from edgemin_hf.training.running_losses import RunningLosses
from edgemin_hf.training.student_forward import StudentForward
from edgemin_hf.training.teacher import record_teacher
from edgemin_hf.training.terms import TermMeans, Terms, check_gradients, lacking, summed
from edgemin_hf.utils.batches import count_rows


class TermTrainer(RowTrainer):
    """A `RowTrainer` whose loss is the sum of the terms that objectives return for a student and its teacher.

    Args:
        objectives: What the student is trained for.
        teacher: The teacher; it is frozen and set to evaluation mode, and never wrapped or saved.
        reads_labels: Whether an objective reads the rows' labels.
        **kwargs: As `transformers.Trainer`.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        teacher: PreTrainedModel | None,
        *,
        reads_labels: bool,
        **kwargs: object,
    ) -> None:
        self.objectives, self.teacher_model = list(objectives), teacher
        learned = [objective.projections for objective in objectives if objective.projections is not None]
        self._projections = nn.ModuleList(learned) if learned else None
        self._means = {True: TermMeans(), False: TermMeans()}  # since they were last told; by whether the model trains
        self._resumed: RunningLosses | None = None
        self._carried: float | None = None
        super().__init__(**kwargs)
        self.callback_handler.callbacks.insert(0, _LossesTakenUp(self))
        # Our losses are means over examples: Trainer is to divide them by the number of accumulated batches, also
        # where a model's forward takes **kwargs and so seems to scale its loss by itself.
        self.model_accepts_loss_kwargs = False
        if teacher is not None:
            teacher.requires_grad_(False).eval().to(self.args.device)
        if self._projections is not None:
            self._projections.to(self.args.device)
        self._student_forward = StudentForward(self.objectives, to_the_end=self.is_fsdp_enabled)
        self._gradients_checked = False
        self._reads_labels = reads_labels

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor | tuple[Tensor | None, dict[str, Tensor | None]] | None:
        """Sum the objectives' loss terms.

        Returns:
            The loss, None where the inputs lack what a term needs, such as labels in evaluation; with the outputs,
            where they are asked for, {"logits": (batch, labels), or None without a head}.

        Raises:
            ValueError: If no term can be computed and no output is asked for, or a term can't train the model.
        """
        terms, logits = self._terms_of(model, inputs, logits=return_outputs)
        loss, training, weight = summed(terms), self.model.training, inputs.get(ROW_WEIGHT, 1)
        if loss is None and not return_outputs and (training or not any(term is not None for term in terms.values())):
            raise lacking(terms)
        if training and torch.is_grad_enabled() and not self._gradients_checked and not self.is_fsdp_enabled:
            check_gradients(terms, self.model, beside=self._projections)
            self._gradients_checked = True
        if loss is not None:
            self.watch_loss(loss, count_rows(inputs))
        self._means[training].add(terms, count_rows(inputs) if weight else 0)
        if loss is not None and weight != 1:
            loss = loss * weight
        return (loss, {"logits": logits}) if return_outputs else loss

    def watch_loss(self, loss: Tensor, rows: int) -> None:
        """Look at the loss of a batch of so many rows before it is weighed; here nobody does."""

    def _terms_of(
        self, model: nn.Module, inputs: Mapping[str, Tensor], logits: bool = False
    ) -> tuple[Terms, Tensor | None]:
        """Return the loss terms by name, and the student's logits where they are asked for or needed."""
        with torch.no_grad(), self.accelerator.autocast():
            teacher = record_teacher(self.teacher_model, self.objectives, inputs)
        with self._student_forward.replacing(self.model, teacher, inputs, logits=logits):
            terms = model(**filter_forward_inputs(self.model, inputs))
        student_logits = terms.pop("logits")
        return terms, student_logits

    def loss_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of a batch outside a training.

        Raises:
            ValueError: If the batch lacks what a term needs.
        """
        terms, _ = self._terms_of(self.model, batch)
        loss = summed(terms)
        if loss is None:
            raise lacking(terms)
        return loss

    def evaluation_loop(self, *args: object, **kwargs: object) -> EvalLoopOutput:
        """Evaluate as `Trainer` does, and add the mean of every loss term to the metrics."""
        self._means[False].clear()
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        means = self._means[False].take(self.accelerator.gather)
        output.metrics.update({f"{prefix}_{name}": value for name, value in means.items()})
        return output

    def log(self, logs: dict[str, float], *args: object, **kwargs: object) -> None:
        """Log the mean of every loss term since the last time, beside `Trainer`'s own numbers."""
        if "loss" in logs:
            logs = {**logs, **self._means[True].take(self.accelerator.gather)}
        if "train_loss" in logs:
            # In place, since it is what `train` returns; of all steps, not of those since a resume. What the checkpoint
            # of the last step left to log no step has brought.
            total = self._total_loss_scalar + (self._carried or 0)
            logs["train_loss"] = total / max(self.state.global_step, 1)
        super().log(logs, *args, **kwargs)

    def plan_rows(self, resume_from_checkpoint: str | os.PathLike[str] | bool | None) -> Path | None:
        """Find the losses that a checkpoint's steps left to log; as `RowTrainer.plan_rows` in all else."""
        checkpoint = super().plan_rows(resume_from_checkpoint)
        self._resumed = None if checkpoint is None else RunningLosses.read(checkpoint)
        return checkpoint

    def take_up_losses(self) -> None:
        """Go on with the losses of the checkpoint that a training begins with, or with none."""
        losses, means = self._resumed, self._means[True]
        means.clear()
        self._carried = None if losses is None else losses.since_log
        if losses is not None:
            self._total_loss_scalar, self._globalstep_last_logged = losses.before_log, losses.logged
            if self.is_world_process_zero():
                means.take_up(losses.terms)

    def training_step(self, *args: object, **kwargs: object) -> Tensor:
        """Run a batch forward and backward as `Trainer` does; the first one's loss brings what is left to log."""
        loss: Tensor = super().training_step(*args, **kwargs)
        carried, self._carried = self._carried, None
        return loss if carried is None else loss + carried

    def _maybe_log_save_evaluate(self, tr_loss: Tensor, *args: object, **kwargs: object) -> None:
        self._since_log = tr_loss  # set to 0 in place where it is logged
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _save_checkpoint(self, *args: object, **kwargs: object) -> None:
        super()._save_checkpoint(*args, **kwargs)
        gather = self.accelerator.gather
        terms = {name: (float(total), float(rows)) for name, (total, rows) in self._means[True].totals(gather).items()}
        since = gather(self._since_log).mean().item()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            RunningLosses(since, self._total_loss_scalar, self._globalstep_last_logged, terms).write(folder)

    def _inner_training_loop(self, batch_size: int | None = None, *args: object, **kwargs: object) -> TrainOutput:
        output: TrainOutput = super()._inner_training_loop(batch_size, *args, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])

    def _get_dataloader(self, *args: object, **kwargs: object) -> DataLoader[Mapping[str, Tensor]]:
        dataset = kwargs.get("dataset", args[0] if args else None)
        models = [self.model] if self.teacher_model is None else [self.model, self.teacher_model]
        trained = dataset is self.train_dataset
        check_rows(dataset, self.data_collator, models, self._reads_labels, trained)
        return super()._get_dataloader(*args, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        # The teacher may read what the student does not, such as token types.
        teacher = () if self.teacher_model is None else forward_names(type(self.teacher_model))
        columns: list[str] = self._signature_columns  # type: ignore[has-type]
        labels = ["labels"] * self._reads_labels  # which a student without a head does not name
        ours = [*labels, COUNTED, TEACHER_LOGITS, TEACHER_ROW]
        self._signature_columns = list(dict.fromkeys([*columns, *ours, *teacher]))


class _LossesTakenUp(TrainerCallback):
    """Let a training go on with a checkpoint's losses, once `Trainer` has set its own to 0.

    Args:
        trainer: The trainer.
    """

    def __init__(self, trainer: TermTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take them up."""
        self._trainer.take_up_losses()
