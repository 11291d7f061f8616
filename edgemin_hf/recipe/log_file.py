"""The log of a run's trainings: what their Trainers log, a JSON object a line, in `log.jsonl` of its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.utils.atomic_files import write_atomic

logger = logging.getLogger(__name__)

LOG = "log.jsonl"
"""Its name."""
_LAST = "train_runtime"
"""What stands in the last entry of a training alone."""


def forget(file: Path, stage: str) -> None:
    """Take out what all trainings of a stage logged that is made anew."""
    _keep(file, lambda entry: entry.get("stage") != stage)


def _keep(file: Path, stays: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the entries of a log that are to stay; half a line, of a killed run, is none."""
    if not file.is_file():
        return
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            lines += [f"{line}\n"] * stays(json.loads(line))
    write_atomic(file, "".join(lines))


class LogFile(TrainerCallback):
    """Write what a training logs, also where it was killed, as if it had not been: no step stands there twice.

    Args:
        file: The file.
        stage: The stage at work.
        part: What of it, such as "trial-2" of a search; "" where it trains once.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import TrainerControl, TrainerState, TrainingArguments
        >>> from edgemin_hf.recipe.log_file import LogFile
        >>> state = TrainerState(global_step=100)
        >>> with TemporaryDirectory() as folder:
        ...     log, arguments = LogFile(Path(folder, "log.jsonl"), "distill"), TrainingArguments(folder, use_cpu=True)
        ...     log.on_train_begin(arguments, TrainerState(), TrainerControl())
        ...     log.on_log(arguments, state, TrainerControl(), logs={"loss": 0.25, "epoch": 1.0})
        ...     print(Path(folder, "log.jsonl").read_text(), end="")
        {"stage": "distill", "step": 100, "loss": 0.25, "epoch": 1.0}
    """

    def __init__(self, file: Path, stage: str, part: str = "") -> None:
        self._file, self._whose = file, {"stage": stage, **({"part": part} if part else {})}
        self._trains = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take out what earlier trainings of this stage logged, and a killed one after its last checkpoint."""
        self._trains = state.is_world_process_zero
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._trains:
            _keep(self._file, lambda entry: self._stays(entry, state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Write a line."""
        if not self._trains or logs is None:  # the validation before a training and after it is the stage's record's
            return
        values = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in logs.items()}
        entry = {**self._whose, "step": state.global_step, **values}
        with self._file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        logger.debug("%(stage)s: step %(step)d", entry, extra={"event": {"event": "log", **entry}})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Write no more."""
        self._trains = False

    def _stays(self, entry: dict[str, Any], step: int) -> bool:
        of_this = all(entry.get(name) == self._whose.get(name) for name in ("stage", "part"))
        # Its last words a training tells again, also where it goes on from the checkpoint of its last step.
        return not of_this or (0 < entry["step"] <= step and _LAST not in entry)
