"""Which rows a step takes: each counts once, however a step is divided, and a resumed run takes those still to come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.batches import count_rows
from edgemin_hf.utils.compat import groups_by_length
from edgemin_hf.utils.records import Record

ROWS = "rows.json"
"""File of a checkpoint that tells which rows its steps took."""

ROW_WEIGHT = "row_weight"
"""Name of the input that tells how much the mean over a batch's rows counts among those of a step; without it 1."""


@dataclass(frozen=True)
class Rows(Record):
    """Which rows the steps of a training take, in which order.

    Attributes:
        rows_of_epoch: Rows that an epoch takes; None where the dataset doesn't tell its length.
        rows_of_step: Rows that a step takes: of all batches that are accumulated, and of all processes.
        batch_size: Rows whose lengths are alike, where rows are grouped by length.
        grouped: Whether they are.
        seed: Seed of the order.
    """

    rows_of_epoch: int | None
    rows_of_step: int
    batch_size: int
    grouped: bool
    seed: int

    @classmethod
    def planned(cls, args: TrainingArguments, dataset: Dataset[object] | None) -> Rows:
        """Return what a training of its own would take."""
        split = args.accelerator_config.split_batches  # a loader's batch is then that of all processes together
        together = args.train_batch_size * (1 if split else args.world_size)
        rows = len(dataset) if isinstance(dataset, Sized) else None
        if rows is not None and args.dataloader_drop_last:
            rows -= rows % together
        seed = args.seed if args.data_seed is None else args.data_seed
        of_step = together * args.gradient_accumulation_steps
        return cls(rows, of_step, args.train_batch_size, groups_by_length(args), seed)

    def resumed(self, checkpoint: Path, args: TrainingArguments) -> Rows:
        """Return the same, in the order that a checkpoint's steps took them.

        Raises:
            ValueError: If the steps to come would take other rows than they would have without the interruption.
        """
        file, state = checkpoint / ROWS, checkpoint / TRAINER_STATE_NAME
        if not state.is_file():
            raise ValueError(f"resume_from_checkpoint: {checkpoint}, which holds no {TRAINER_STATE_NAME}")
        if not [*checkpoint.glob("optimizer*"), *checkpoint.glob("global_step*")]:  # the latter is DeepSpeed's
            raise ValueError(
                f"resume_from_checkpoint: {checkpoint}, without an optimizer; expected: one saved with save_only_model "
                "false"
            )
        if not file.is_file():  # not written by this class
            before: int | None = json.loads(state.read_text()).get("train_batch_size")
            if before not in (None, args.train_batch_size):
                raise _other("per_device_train_batch_size", args.train_batch_size, before)
            return self
        kept = Rows.from_dict(json.loads(file.read_text()))
        if kept.rows_of_step != self.rows_of_step:
            size, steps, processes = args.train_batch_size, args.gradient_accumulation_steps, args.world_size
            split = f"{size} * {steps} of {processes} process(es), {self.rows_of_step} rows a step"
            name = "per_device_train_batch_size * gradient_accumulation_steps"
            raise _other(name, split, f"any that make {kept.rows_of_step}")
        if kept.rows_of_epoch != self.rows_of_epoch:
            raise _other("train_dataset", f"{self.rows_of_epoch} rows an epoch", kept.rows_of_epoch)
        if kept.grouped != self.grouped:
            raise _other("group_by_length", self.grouped, kept.grouped)
        if kept.seed != self.seed:
            raise _other("data_seed" if args.data_seed is not None else "seed", self.seed, kept.seed)
        return kept


def _other(name: str, value: object, before: object) -> ValueError:
    return ValueError(f"{name}: {value}; expected: {before}, as in the checkpoint to resume from")


class RowsOfCheckpoints(TrainerCallback):
    """Write into each checkpoint which rows its steps took.

    Attributes:
        of_steps: What is written; None before a training begins.
    """

    of_steps: Rows | None = None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write them."""
        if self.of_steps is not None and state.is_world_process_zero:
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / ROWS
            write_atomic(file, json.dumps(self.of_steps.to_dict()))


def first_rows(batch: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Return the first rows of a batch."""
    shape = (count_rows(batch),)
    return {name: tensor[:rows] if tensor.shape[:1] == shape else tensor for name, tensor in batch.items()}


def weighted_batches(
    loader: Iterator[Mapping[str, Tensor]], number: int, accelerator: Accelerator
) -> list[Mapping[str, Tensor | float]]:
    """Return the batches of a step, those whose mean counts for more or less than the others' with a `ROW_WEIGHT`.

    A Trainer takes the mean over batches, and over processes, whether they have equally many rows or not.

    Args:
        loader: Gives batches.
        number: Batches of a step; there may be fewer left.
        accelerator: What prepared the loader.

    Returns:
        The batches, without the rows that the loader repeats. With the weights, the mean over batches and processes is
        that over rows.
    """
    batches, own, everywhere = list[Mapping[str, Tensor]](), list[int](), 0
    for batch in islice(loader, number):
        ours, together = own_rows(batch, accelerator)
        batches.append(first_rows(batch, ours) if 0 < ours < count_rows(batch) else batch)
        own.append(ours)
        everywhere += together
    mean = everywhere / (len(batches) * accelerator.num_processes or 1)
    return [
        batch if rows == mean else {**batch, ROW_WEIGHT: rows / mean} for batch, rows in zip(batches, own, strict=True)
    ]


def own_rows(batch: Mapping[str, Tensor], accelerator: Accelerator) -> tuple[int, int]:
    """Count the rows of a loader's batch that are not there a second time.

    Several processes get equally many; at the end of an epoch the loader repeats rows for that.

    Args:
        batch: The batch that the loader gave last.
        accelerator: What prepared the loader.

    Returns:
        How many come first in this process's batch, and how many there are in all processes' batches together.
    """
    rows, processes, state = count_rows(batch), accelerator.num_processes, accelerator.gradient_state
    together = rows * processes
    if processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return rows, together
    loader = state.active_dataloader
    if not isinstance(loader, DataLoaderDispatcher) and loader.total_batch_size != together:
        return rows, together  # a batch sampler of somebody's own
    return min(max(state.remainder - accelerator.process_index * rows, 0), rows), state.remainder
