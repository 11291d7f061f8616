"""Checkpoints of a training: complete or not at all, at least one a minute, and a word on the one that is taken up."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import SaveStrategy

logger = logging.getLogger(__name__)

INTERVAL_S = 60.0
"""Seconds of work that a kill may cost at most, where writing a checkpoint takes a tenth of them or less."""
_MOST_SHARE = 0.1
"""Share of the time that writing checkpoints may take."""


class CheckpointMark(TrainerCallback):
    """Mark a checkpoint as complete once all of it is written: a killed run goes on from the last one so marked."""

    name = "complete"

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Mark it."""
        PartialState().wait_for_everyone()  # each process writes the state of its random numbers
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / self.name).touch()


class Resumed(TrainerCallback):
    """Tell of a training that goes on.

    Args:
        stage: The stage's name.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Tell where it begins."""
        if state.is_world_process_zero and state.global_step:
            logger.info("stage %s: resumed at step %d of %d", self.stage, state.global_step, state.max_steps)


class TimedCheckpoints(TrainerCallback):
    """Save a checkpoint after a minute without one, beside those that come every `save_steps`.

    The first process decides for all. The others ask it not at each step, but when half of the time that is left to the
    next checkpoint should have gone.

    Args:
        clock: Tells the seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = INTERVAL_S
        self._began = self._saved = self._stepped = clock()
        self._first_step = self._next_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Begin to count the time."""
        self._began = self._saved = self._clock()
        self._first_step, self._next_step = state.global_step, state.global_step + 1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for a checkpoint where one is due."""
        self._stepped = now = self._clock()
        if args.save_strategy == SaveStrategy.NO or state.global_step < self._next_step:
            return
        left = self._interval - (now - self._saved)
        step_seconds = max((now - self._began) / (state.global_step - self._first_step), 1e-6)
        decided: list[object] = [left <= 0, max(1, int(left / 2 / step_seconds))]
        if args.world_size > 1:
            broadcast_object_list(decided)
        save, steps = decided
        assert isinstance(steps, int)  # noqa: S101 - as it was sent
        control.should_save = control.should_save or bool(save)
        self._next_step = state.global_step + steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Count anew, and not more often than the writing allows."""
        self._saved = self._clock()
        self._interval = max(INTERVAL_S, (self._saved - self._stepped) / _MOST_SHARE)


def last_checkpoint(work: Path) -> str | None:
    """Return the newest complete checkpoint, after deleting all others: a kill may have left half of them.

    That with the best model so far stays, which `load_best_model_at_end` takes at the end.
    """
    steps = {checkpoint: int(checkpoint.name.split("-")[1]) for checkpoint in work.glob("checkpoint-*")}
    complete = [checkpoint for checkpoint in steps if (checkpoint / CheckpointMark.name).exists()]
    newest = max(complete, key=lambda checkpoint: steps[checkpoint], default=None)
    kept = {newest} if newest is None else {newest, _best_checkpoint(newest)}
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        for checkpoint in steps.keys() - kept:
            shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    return None if newest is None else str(newest)


def _best_checkpoint(checkpoint: Path) -> Path | None:
    """Return the checkpoint of the best evaluation before another one was written; None where there was none."""
    file = checkpoint / TRAINER_STATE_NAME
    step = TrainerState.load_from_json(str(file)).best_global_step if file.is_file() else None
    return None if step is None else checkpoint.with_name(f"checkpoint-{step}")
