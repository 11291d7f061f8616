"""What of the losses a checkpoint's steps left to log: a resumed training logs what an unbroken one does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.records import Record

_FILE = "losses.json"


@dataclass(frozen=True)
class RunningLosses(Record):
    """Losses up to a checkpoint. `Trainer` forgets them at a resume, and would log means over a part of the steps.

    Attributes:
        since_log: Sum of the losses of the steps since the last log, the mean over processes.
        before_log: Sum of those before it.
        logged: Step of the last log.
        terms: By the terms' names, their sums over rows since the last log, and the rows, of all processes.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.training.running_losses import RunningLosses
        >>> losses = RunningLosses(since_log=0.5, before_log=2.0, logged=10, terms={"loss_task": (4.0, 8.0)})
        >>> with TemporaryDirectory() as folder:
        ...     losses.write(Path(folder))
        ...     RunningLosses.read(Path(folder)) == losses
        True
    """

    since_log: float
    before_log: float
    logged: int
    terms: Mapping[str, tuple[float, float]]

    def write(self, checkpoint: Path) -> None:
        """Write them into a checkpoint."""
        write_atomic(checkpoint / _FILE, json.dumps(self.to_dict()))

    @classmethod
    def read(cls, checkpoint: Path) -> Self | None:
        """Read those of a checkpoint; None where they were not written."""
        file = checkpoint / _FILE
        return cls.from_dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
