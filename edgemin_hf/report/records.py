"""What a stage of a recipe writes down: `stages/<stage>.json`."""

from __future__ import annotations

from dataclasses import dataclass

from edgemin_hf.export.manifest import Fidelity
from edgemin_hf.utils.records import Json, Record


@dataclass(frozen=True)
class LayerSearch(Record):
    """What a search for the teacher's layer found.

    Attributes:
        metric: Name of the metric that counts.
        layers: The layers that were tried.
        values: The metric on the validation rows after each.
        best: The layer that was taken.
    """

    metric: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    best: int


@dataclass(frozen=True)
class Trial(Record):
    """A training of a search for the best settings.

    Attributes:
        learning_rate: Its learning rate.
        num_train_epochs: Its epochs.
        examples: Examples that it saw, each as often as it saw it.
        metric: Name of the metric that counts.
        before: The metric on the validation rows before it.
        after: The same after it.
        notes: What else it told.
    """

    learning_rate: float
    num_train_epochs: float
    examples: int
    metric: str
    before: float
    after: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleError(Record):
    """What became of a module that was reconstructed.

    Attributes:
        name: Its layers, such as "layers 0-2", or "head".
        before: Mean squared error of its output before it was trained, by the mean square of the teacher's output.
        after: The same after.
    """

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Coverage(Record):
    """What a vocabulary that was cut makes of texts.

    Attributes:
        texts: Which texts.
        split: Share of their pieces that the full vocabulary had whole, and the cut one writes as smaller pieces.
        unknown: Share of their pieces that the cut vocabulary has no token for.
    """

    texts: str
    split: float
    unknown: float


@dataclass(frozen=True)
class VocabularyCut(Record):
    """What became of a student's vocabulary.

    Attributes:
        before: Tokens before.
        after: Tokens after.
        coverage: What that means for texts.
    """

    before: int
    after: int
    coverage: tuple[Coverage, ...]


@dataclass(frozen=True)
class TrainingCurve(Record):
    """How a training went.

    Attributes:
        metric: Name of the validation metric.
        steps: Steps after which the loss was logged.
        losses: The mean loss of the steps since the one before.
        validated: Steps after which the validation rows were measured; 0 is before the first.
        values: The metric there.
    """

    metric: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    validated: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class StageRecord(Record):
    """What a stage is made of and, once it has finished, what it did; what does not apply is at its default.

    Attributes:
        stage: Which stage.
        finished: Whether it has finished.
        name: Its name in the recipe; None is that of `stage`.
        examples: Examples that it saw, each as often as it saw it.
        metric: What it is measured by on validation rows.
        before: The metric before the stage.
        after: The metric after it.
        notes: What else is worth telling, a line each.
        curve: How its training went, where it trained.
        search: What the search for the teacher's layer found.
        trials: The trainings of a search for the best settings; all else that is told is the best one's.
        precisions: The precision of each module, where the stage chose them.
        reconstruction: The errors of the modules that were reconstructed.
        vocabulary: What became of the vocabulary, where the stage cut it.
        fidelity: Outcome of the check of each graph, by precision.
        cut_rows: Of the first stage, how many rows of each table are cut by the task's `max_length`.
        seconds: How long it took.
        tag: What it adds to the tags of the model on the Hub.
        fingerprint: Hash of everything that its result depends on.
        settings: Its settings.
        inputs: What else its result depends on and no stage before it did, by name.
        machine: What of the machine only changes how results are rounded: threads, processes, precision.
        version: Version of this package that ran it.
    """

    stage: str
    finished: bool
    name: str | None = None
    examples: int | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    notes: tuple[str, ...] = ()
    curve: TrainingCurve | None = None
    search: LayerSearch | None = None
    trials: tuple[Trial, ...] | None = None
    precisions: dict[str, str] | None = None
    reconstruction: tuple[ModuleError, ...] | None = None
    vocabulary: VocabularyCut | None = None
    fidelity: dict[str, Fidelity] | None = None
    cut_rows: dict[str, int] | None = None
    seconds: float | None = None
    tag: str | None = None
    fingerprint: str | None = None
    settings: Json | None = None
    inputs: Json | None = None
    machine: Json | None = None
    version: str | None = None
