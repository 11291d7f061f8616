"""What `edgemin sensitivity` measures, and on which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgemin_hf.pruning.saliency import MEASURES
from edgemin_hf.tasks.known import TASKS, task_type
from edgemin_hf.tasks.run_rows import rows_of_run
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.utils.atomic_files import check_writable_folder

SALIENCIES = (*MEASURES, "random")
MEASURED = ("pruning", "quantization")
NUMBERS, HEAT_MAP, CURVES, MODULES, PAGE = FILES = (
    "sensitivity.json", "sensitivity.svg", "curves.svg", "quantization.svg", "sensitivity.html",
)  # fmt: skip
_DEFAULTS = {"text_column": "text", "label_column": "label", "metric": "accuracy", "max_length": 128}


@dataclass(frozen=True, kw_only=True)
class SensitivitySettings:
    """What is measured, and on which rows.

    Attributes:
        model: Folder or Hub id of a fine-tuned sequence classifier.
        train: Table whose rows tell the saliency, and the ranges of the inputs that are quantised.
        data: Table whose rows are measured; another than `train`.
        output: Folder for the result.
        measure: What is measured: "pruning" (cuts), "quantization" (modules on their grids), or both.
        text_column: As in `TextTask`; likewise `text_pair_column`, `label_column`, `metric`, `max_length`.
        label_columns: As in `MultiLabel`; None where labels stand in one column.
        others: All settings of the task of a run, with its `type`; none where the model lies in no run's folder.
        examples: Number of rows of `data` that are drawn to be measured; 0 takes all.
        saliency_examples: Number of rows of `train` that are drawn for the saliency and the ranges.
        saliency: By what the units that go first are chosen: "taylor", "taylor_weights", "fisher" or "random".
        sparsities: Shares of units, above 0 to 1.
        batch_size: Rows of a pass.
        threads: Threads of PyTorch.
        seed: Seed of the two draws and of random saliency.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.sensitivity import SensitivitySettings
        >>> files = {"model": "me/model", "train": Path("train.csv"), "data": Path("dev.csv"), "output": Path("costs")}
        >>> columns = {"text_column": "text", "text_pair_column": None, "label_column": "label", "label_columns": None}
        >>> size = {"max_length": 128, "examples": 0, "saliency_examples": 256, "batch_size": 32, "threads": 1}
        >>> how = {"measure": ["pruning"], "saliency": "taylor", "sparsities": [0.25, 0.5], "seed": 0}
        >>> SensitivitySettings(**files, **columns, **size, **how, metric="accuracy").task.type
        'text_classification'
    """

    model: str
    train: Path
    data: Path
    output: Path
    measure: list[str]
    text_column: str
    text_pair_column: str | None
    label_column: str
    label_columns: list[str] | None
    metric: str
    max_length: int
    examples: int
    saliency_examples: int
    saliency: str
    sparsities: list[float]
    batch_size: int
    threads: int
    seed: int
    others: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_run(cls, options: Mapping[str, Any]) -> SensitivitySettings:
        """Return settings where what is None is that of the run in whose folder the model lies, else the default.

        Args:
            options: The settings by name.

        Raises:
            ValueError: If the rows are missing, since the model lies in no run's folder; or as the class.
        """
        found = rows_of_run(Path(str(options["model"])))
        ours: dict[str, Any] = {}
        if found is not None:
            told = {**found.task, "type": task_type(found.task)}
            ours = {**told, "train": found.train, "data": found.validation, "others": told}
        given = {name: value for name, value in options.items() if value is not None}
        for name in ("train", "data"):
            if name not in {**ours, **given}:
                raise ValueError(f"{name}: missing; expected: --{name} FILE, or a model in the folder of a run")
        known: dict[str, Any] = {**_DEFAULTS, "others": {}, **ours, **given}
        settings: dict[str, Any] = {field.name: known.get(field.name) for field in fields(cls)}
        return cls(**settings)

    def __post_init__(self) -> None:
        least = {"examples": 0, "saliency_examples": 1, "batch_size": 1, "threads": 1, "seed": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: {lowest} or more")
        if self.seed >= 2**32:
            raise ValueError(f"seed: {self.seed}; allowed: 0 to {2**32 - 1}")
        if not self.measure or not set(self.measure) <= set(MEASURED):
            allowed = f"{', '.join(MEASURED)}, one of them or the two"
            raise ValueError(f"measure: {' '.join(self.measure)}; allowed: {allowed}")
        if self.saliency not in SALIENCIES:
            raise ValueError(f"saliency: {self.saliency}; allowed: {', '.join(SALIENCIES)}")
        for share in self.sparsities:
            if not 0 < share <= 1:
                raise ValueError(f"sparsities: {share:g}; allowed: shares above 0 to 1")
        if len(set(self.sparsities)) < len(self.sparsities):
            raise ValueError(f"sparsities: {' '.join(f'{s:g}' for s in self.sparsities)}; allowed: each share once")
        if self.train.resolve() == self.data.resolve():
            raise ValueError(f"data: {self.data}, which is train too; allowed: rows that chose nothing")
        if self.output.exists() and not (
            self.output.is_dir() and {path.name for path in self.output.iterdir()} <= set(FILES)
        ):
            raise ValueError(f"output: {self.output}, which holds something else; allowed: a new folder")
        if str(self.output).startswith("~"):
            raise ValueError(f"output: {self.output}, where ~ is a character; expected: the folder's complete name")
        try:
            check_writable_folder(self.output.absolute().parent)
        except ValueError:
            above = next(folder for folder in self.output.absolute().parents if folder.exists())
            raise ValueError(f"output: {self.output}, which can't be made in {above}; allowed: a new folder") from None

    @property
    def task(self) -> TableTask:
        """The task: of a run's model as the run has it, of another told by the metric and the columns."""
        kind = "multi_label" if self.label_columns is not None else task_type({"metric": self.metric, **self.others})
        if not TASKS[kind].learns_labels and "pruning" in self.measure and self.saliency != "random":
            raise ValueError(
                f"saliency: {self.saliency} for {kind}, which has no labels to score units by; allowed: random, or "
                "measure: quantization"
            )
        known = {field.name for field in fields(TASKS[kind]) if field.name != "type"}
        told = {name: value for name, value in self.others.items() if name in known}
        names = ["metric", "max_length"]
        if issubclass(TASKS[kind], TextTask):
            names += ["text_column", "text_pair_column", "label_column"]
        if self.label_columns is not None:
            names.append("label_columns")
        told |= {name: getattr(self, name) for name in names}
        return TASKS[kind](str(self.train), str(self.data), str(self.data), **told)
