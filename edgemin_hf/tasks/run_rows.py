"""The rows that a run trained and chose by, written into its folder for whoever asks more of its models."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.content import sha256_of
from edgemin_hf.utils.records import Json

ROWS = "rows"
"""Their folder in that of a run."""
_TASK = "task.json"
_LATER = ("stratify", "class_weights", "label_smoothing", "out_of_scope_label")
"""Settings of tasks that earlier versions did not have: where they hold their defaults, nothing is another."""


class RunRows(NamedTuple):
    """What a run trained and chose by.

    Attributes:
        train: Table of the training rows, without those that were held out.
        validation: Table of the validation rows.
        task: The task's settings by name, but for its files.
    """

    train: Path
    validation: Path
    task: Json


def task_settings(task: TableTask) -> dict[str, object]:
    """Return a task's settings, but for where its rows come from."""
    settings = asdict(task)
    defaults = {field.name: field.default for field in fields(task)}
    of_rows = {name for name in settings if name.endswith(("_file", "_files", "_split"))}
    left_out = {*of_rows, "dataset", "dataset_config", "revision", "further_tests"}
    left_out |= {name for name in _LATER if name in settings and settings[name] == defaults[name]}
    return {name: value for name, value in settings.items() if name not in left_out}


def write_rows(task: TableTask, root: Path, seed: int, run: Path) -> None:
    """Write the training and the validation rows of a task as `rows/train.parquet` and `rows/validation.parquet`.

    Where they stand already they stay.

    Args:
        task: The task.
        root: The folder that its paths are relative to.
        seed: Seed of the draw that held rows out.
        run: The folder of the run.

    Raises:
        ValueError: If a table can't be read.
    """
    settings = task_settings(task)
    files = [*task.train_paths(root), *([] if task.holds_out else [task.path(root, "validation")])]
    told = {"task": settings, "seed": seed, "files": [sha256_of(file) for file in files]}
    content = json.dumps(told, indent=2) + "\n"
    written = run / ROWS / _TASK
    if written.is_file() and written.read_text(encoding="utf-8") == content:
        return
    with atomic_folder(run / ROWS) as folder:
        for name, table in zip(("train", "validation"), task.tables(root, seed), strict=True):
            table.to_parquet(folder / f"{name}.parquet")
        (folder / _TASK).write_text(content, encoding="utf-8")


def rows_of_run(model: Path) -> RunRows | None:
    """Return the rows of the run in whose folder a model lies; None where it lies in none."""
    for folder in model.absolute().parents:
        file = folder / ROWS / _TASK
        if file.is_file():
            rows, told = folder / ROWS, json.loads(file.read_text(encoding="utf-8"))
            return RunRows(rows / "train.parquet", rows / "validation.parquet", told["task"])
    return None
