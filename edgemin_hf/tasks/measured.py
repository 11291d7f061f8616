"""How a task's answers are measured: what outputs say, the truth beside it, and the metrics of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction

from edgemin_hf.data.batches import token_lengths
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.metrics import (
    Answer,
    Answers,
    Choice,
    Measurement,
    check_module,
    measure,
    metrics_of,
    per_class,
    value_of,
)
from edgemin_hf.tasks.metrics.choices import numbered
from edgemin_hf.tasks.metrics.known import DEFAULTS


@dataclass
class MeasuredTask(ABC):
    """A task's metrics.

    Attributes:
        metric: A module of `evaluate` by name, path or Hub id; a mapping of its `name` and settings; or a list of
            several, of which the first decides, or the one with `decides: true`.
        answer: What the metrics compare.
        ragged: As of `TaskHead`.
    """

    metric: Choice | list[Choice] = ""

    answer: ClassVar[Answer]
    ragged: ClassVar[bool]

    def choose_metrics(self) -> None:
        """Find the metrics that are named, or that of such answers; ValueError where they don't go together."""
        if self.metric == "":
            self.metric = DEFAULTS[self.answer]
        self.metrics = metrics_of(self.metric, self.answer)

    @property
    def metric_name(self) -> str:
        """Name of the metric that decides."""
        return self.metrics[0].name

    def settle_metrics(self, root: Path, labels: Mapping[str, int]) -> None:
        """Find the modules of metrics that do not ship, and the number of a label that a metric is asked for.

        Args:
            root: The folder that paths are relative to.
            labels: Number of each label.

        Raises:
            ValueError: If a module can't be loaded or takes other answers, or a label is not known.
        """
        asked = metrics_of(self.metric, self.answer)  # a number that was found before could be another label's name
        self.metrics = [numbered(metric.located(root), labels) for metric in asked]
        for metric in self.metrics:
            check_module(metric, self.answer)

    @abstractmethod
    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return what a model's outputs say, as `measure` takes it. See `Task.predictions`."""

    def alternatives(self, outputs: Outputs, rows: Dataset) -> Sequence[object]:
        """Return what else could have been answered, for each example; nothing where that is not told."""
        return ()

    def chooses(self, table: Dataset) -> bool:
        """Return whether `calibrated` chooses something by the rows of a validation table."""
        return False

    def calibrated(self, outputs: Outputs, rows: Dataset) -> Self:
        """Return the task with what is chosen for a model by its outputs on validation rows; itself if nothing is."""
        return self

    def references(self, rows: Dataset) -> Answers:
        """Return the truth of tokenised rows, as `measure` takes it."""
        return np.array(rows["labels"])

    def compute_metrics(self, prediction: EvalPrediction, rows: Dataset) -> dict[str, float]:
        """Compute the metrics of predictions for some rows: with these given, the `compute_metrics` of a Trainer.

        A Trainer pads what a model gives for each token; what stands behind a row's own tokens is cut off.
        """
        outputs: Outputs = prediction.predictions
        if self.ragged:
            outputs = [output[:length] for output, length in zip(outputs, token_lengths(rows), strict=True)]
        truth, found = self.references(rows), self.calibrated(outputs, rows).predictions(outputs, rows)
        return {metric.name: value_of(metric, truth, found) for metric in self.metrics}

    def value(self, references: Answers, predictions: Answers) -> float:
        """Compute the metric that decides, alone."""
        return value_of(self.metrics[0], references, predictions)

    def measure(self, references: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions by the task's metrics, with their 95% intervals.

        Args:
            references: The truth, one an example.
            predictions: The predictions, likewise.
            names: Names of the labels, by number; without them no label is measured on its own.

        Returns:
            What the metric that decides found, with what the others did under "others", and each label's own values
            under "per_class"; see `edgemin_hf.tasks.metrics.measure`.
        """
        found, *others = (measure(metric, references, predictions) for metric in self.metrics)
        if others:
            found["others"] = others
        if names and (rows := per_class(self.metrics[0], self.answer, references, predictions, names)):
            found["per_class"] = rows
        return found
