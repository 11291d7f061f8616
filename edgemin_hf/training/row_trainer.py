"""A Trainer whose rows count once each, in training and in evaluation, however they are divided into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import TrainOutput, has_length

from edgemin_hf.training.rows import RowsOfCheckpoints, weighted_batches


class RowTrainer(Trainer):
    """A `transformers.Trainer` that gives its loss the batches of a step with their weights.

    What derives from it multiplies the loss of a batch by its input `ROW_WEIGHT`, where there is one.

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
        if self.state.global_step >= self.state.max_steps:  # a checkpoint of the last step was resumed
            self.control.should_training_stop = True
            return [], None
        return weighted_batches(epoch_iterator, num_batches, self.accelerator), None

    def _inner_training_loop(self, batch_size: int | None = None, *args: object, **kwargs: object) -> TrainOutput:
        # transformers 4 would go on with the checkpoint's batch size, and with the arguments' accumulation.
        return super()._inner_training_loop(self.args.train_batch_size, *args, **kwargs)

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
