"""A Trainer whose rows count once each, in training and in evaluation, however they are divided into batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import TrainOutput, get_last_checkpoint, has_length

from edgemin_hf.data.batches import LengthGroupedBatches, token_lengths
from edgemin_hf.training.rows import (
    ROW_WEIGHT,
    Rows,
    RowsOfCheckpoints,
    first_rows,
    own_rows,
    weighted_batches,
)
from edgemin_hf.utils.batches import count_rows
from edgemin_hf.utils.compat import groups_by_length


class RowTrainer(Trainer):
    """A `transformers.Trainer` that gives its loss the batches of a step with their weights.

    What derives from it multiplies the loss of a batch by its input `ROW_WEIGHT`, where there is one, and gives the
    logits beside the loss as {"logits": (batch, labels), or None}.

    Args:
        **kwargs: As `transformers.Trainer`.

    Attributes:
        rows: Tells checkpoints which rows their steps took.
    """

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.rows = RowsOfCheckpoints()
        self.callback_handler.callbacks.insert(0, self.rows)  # whoever marks a checkpoint as complete comes after it

    def get_batch_samples(
        self, epoch_iterator: Iterator[Mapping[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[Mapping[str, Tensor | float]], None]:
        """Return the batches of a step, of which each row counts as much as any other."""
        # A checkpoint of the last step was resumed, or one at which the training had stopped early.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return [], None
        return weighted_batches(epoch_iterator, num_batches, self.accelerator), None

    def _inner_training_loop(self, batch_size: int | None = None, *args: object, **kwargs: object) -> TrainOutput:
        self._forget_evaluation()
        # transformers 4 would go on with the checkpoint's batch size, and with the arguments' accumulation.
        return super()._inner_training_loop(self.args.train_batch_size, *args, **kwargs)

    def _forget_evaluation(self) -> None:
        """Undo what an evaluation before the training left on the model of each of several processes.

        It marks the model as prepared, so that Accelerate would not wrap it any more, and each process would train a
        model of its own.
        """
        several = self.accelerator.num_processes > 1 and not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if several and self.model.__dict__.pop("_is_accelerate_prepared", False):
            if "_original_forward" in self.model.__dict__:  # that before mixed precision
                self.model.forward = self.model.__dict__.pop("_original_forward")
            self.model_wrapped = self.model

    def _get_dataloader(self, *args: object, **kwargs: object) -> DataLoader[Mapping[str, Tensor]]:
        drops = self.args.dataloader_drop_last
        # What training leaves out at the end of an epoch comes in another one; an evaluation is to take every row.
        self.args.dataloader_drop_last = drops and bool(kwargs.get("is_training"))
        try:
            loader: DataLoader[Mapping[str, Tensor]] = super()._get_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = drops
        if drops and has_length(loader) and not len(loader):
            found = f"dataloader_drop_last: True, and the rows fill no batch of {self.args.train_batch_size}"
            raise ValueError(f"{found}; expected: false, or smaller batches")
        return loader

    def plan_rows(self, resume_from_checkpoint: str | os.PathLike[str] | bool | None) -> Path | None:
        """Settle which rows the steps of a training will take, and return the checkpoint that it goes on from.

        Args:
            resume_from_checkpoint: A checkpoint; True takes the last one, None or False starts anew.

        Raises:
            ValueError: If a checkpoint's steps took other rows, or it can't be gone on from.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(str(self.args.output_dir))
            if resume_from_checkpoint is None:
                raise ValueError(f"resume_from_checkpoint: True, but {self.args.output_dir} holds no checkpoint")
        checkpoint = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str | os.PathLike) else None
        rows = Rows.planned(self.args, self.train_dataset)
        self.rows.of_steps = rows if checkpoint is None else rows.resumed(checkpoint, self.args)
        return checkpoint

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluate one batch, also one without labels or without a teacher; rows that a loader repeats don't count."""
        inputs = self._prepare_inputs(inputs)
        rows, (own, _) = count_rows(inputs), own_rows(inputs, self.accelerator)
        counted = first_rows(inputs, own) if own else {**inputs, ROW_WEIGHT: 0}
        with torch.no_grad(), self.compute_loss_context_manager():
            found = self.compute_loss(model, counted, return_outputs=not prediction_loss_only)
        loss, outputs = found if isinstance(found, tuple) else (found, {})
        logits, mask, labels = outputs.get("logits"), inputs.get("attention_mask"), inputs.get("labels")
        if logits is None:
            return loss, None, None
        if logits.ndim == 3 and mask is not None:
            logits = _own_tokens_first(logits, mask[: len(logits)])
            if labels is not None:
                labels = _own_tokens_first(labels[..., None], mask)[..., 0]
        if len(logits) < rows:  # as many as the other processes have; what is too much goes when they are gathered
            logits = torch.cat([logits, logits.new_zeros(rows - len(logits), *logits.shape[1:])])
        return loss, logits, labels

    def _get_train_sampler(
        self, train_dataset: Dataset[Mapping[str, Sequence[int]]] | None = None
    ) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not groups_by_length(self.args) or dataset is None or not hasattr(dataset, "__len__"):
            return super()._get_train_sampler(train_dataset)
        if self.args.length_column_name in getattr(dataset, "column_names", ()):
            lengths = dataset[self.args.length_column_name]
        else:
            lengths = token_lengths(dataset)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        rows = self.rows.of_steps
        return LengthGroupedBatches(lengths, self.args.train_batch_size if rows is None else rows.batch_size, seed)

    def _get_eval_sampler(self, eval_dataset: Dataset[Mapping[str, Sequence[int]]]) -> Sampler[int] | None:
        # In the dataset's order, also with group_by_length: predictions are to stand beside their rows.
        return SequentialSampler(eval_dataset) if hasattr(eval_dataset, "__len__") else None

    def batches_of(self, rows: datasets.Dataset) -> Iterator[dict[str, Tensor]]:
        """Yield evaluation batches of some rows, of like lengths, on the device, in each process all of them."""
        columns = self._remove_unused_columns(rows, "evaluation")
        order = np.argsort(token_lengths(columns), kind="stable")
        loader = DataLoader(columns.select(order), self.args.eval_batch_size, collate_fn=self.data_collator)
        return map(self._prepare_inputs, loader)


def _own_tokens_first(values: Tensor, mask: Tensor) -> Tensor:
    """Return values (batch, length, width) with each row's own tokens first, wherever its padding is."""
    order = mask.bool().int().argsort(dim=1, descending=True, stable=True)
    return values.gather(1, order[..., None].expand_as(values))
