"""What is told while a stage is at work: one line with a bar on a terminal, now and then a plain one elsewhere."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, TextIO

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

_SHORT_S = 2.0
"""What takes less has no bar."""
_PLAIN_S = 30.0
"""Seconds from one plain line to the next."""
_BAR = "{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}"


def duration(minutes: float) -> str:
    """Return a time in words.

    Example:
        >>> from edgemin_hf.recipe.progress import duration
        >>> duration(0.4), duration(150), duration(6000)
        ('0.4 min', '2 hours', '4 days')
    """
    if minutes < 120:
        return f"{minutes:.1f} min"
    hours = minutes / 60
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"


class Line:
    """The line of the stage at work; it is gone when that is done, and the stage's result stands in its place.

    Args:
        file: Where a bar is shown, if it is a terminal; None takes stderr.
        clock: Tells the seconds.
    """

    def __init__(self, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._bar: tqdm[NoReturn] | None = None
        self._name, self._told_at = "", 0.0

    @contextmanager
    def of(self, name: str, minutes: float, folder: object) -> Iterator[None]:
        """Tell that a stage is at work.

        Args:
            name: Its name.
            minutes: About how long it takes.
            folder: Where its result will stand.
        """
        # As tqdm itself has it for what names no `disable`; None is a terminal's bar alone.
        quiet = bool(os.environ.get("TQDM_DISABLE")) or None
        self._name, self._told_at = name, self._clock()
        self._bar = tqdm(
            desc=f"{name}: at work, about {duration(minutes)}",
            bar_format="{desc}",
            leave=False,
            delay=0,
            disable=quiet,
            file=self._file,
        )
        if self._bar.disable:
            event = {"event": "begun", "name": name, "minutes": round(minutes, 3), "folder": str(folder)}
            about = duration(minutes)
            logger.info("%s: begun (about %s), into %s", name, about, folder, extra={"event": event})
        try:
            yield
        finally:
            self._bar.close()
            self._bar = None

    def advance(self, done: int, total: int, told: str) -> None:
        """Tell how far the stage is.

        Args:
            done: Steps that are done.
            total: All steps.
            told: What else is worth telling.
        """
        if self._bar is None:
            return
        if not self._bar.disable:
            self._bar.total, self._bar.bar_format = total, _BAR
            self._bar.set_description_str(self._name, refresh=False)
            self._bar.set_postfix_str(told, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._clock() - self._told_at >= _PLAIN_S:
            self._told_at = self._clock()
            event = {"event": "progress", "name": self._name, "step": done, "steps": total, "told": told}
            logger.info("%s: step %d of %d, %s", self._name, done, total, told, extra={"event": event})


class TrainingProgress(TrainerCallback):
    """Have a line tell of a training: how far it is, its loss, the last validation, and the time that is left.

    Args:
        line: The line.
        metric: What validation measures.
        clock: Tells the seconds.
    """

    def __init__(self, line: Line, metric: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._line, self._metric, self._clock = line, metric, clock
        self._told: dict[str, float] = {}
        self._began, self._first_step = clock(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Begin to count the time."""
        self._told, self._began, self._first_step = {}, self._clock(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Remember the loss and what validation measured."""
        for name, told in (("loss", "loss"), (f"eval_{self._metric}", f"validation {self._metric}")):
            if logs is not None and name in logs:
                self._told[told] = logs[name]

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Tell it."""
        seconds, done = self._clock() - self._began, state.global_step - self._first_step
        if not state.is_world_process_zero or seconds < _SHORT_S:
            return
        left = seconds / done * (state.max_steps - state.global_step) / 60
        told = [f"{name} {value:.4f}" for name, value in self._told.items()]
        self._line.advance(state.global_step, state.max_steps, ", ".join([*told, f"{duration(left)} left"]))
