"""What a task is: the seam between data, heads, losses and metrics. A task is one file that fulfils `Task`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self, TypeAlias

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import EvalPrediction, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.masking import Collation
from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.artefact import Reading
from edgemin_hf.tasks.head import TaskHead
from edgemin_hf.tasks.metrics import Answers, Choice, Measurement, Metric

Outputs: TypeAlias = Sequence[NDArray[np.float32]] | NDArray[np.float32]
"""What a model gives for some rows: (width,) each, or of a ragged task (length, width) each."""

Files: TypeAlias = str | list[str]
"""A file, a pattern of files such as data/*.csv, or a list of several."""


@dataclass
class Split:
    """Rows of a dataset to test on; what is not told is the task's own.

    Attributes:
        split: The split; None is the task's `test_split`.
        dataset: Id of a dataset on the Hub, or a folder of one.
        dataset_config: Its configuration; None is the task's, or of another dataset the only one.
        revision: Branch, tag or commit; None is the task's, or of another dataset the newest.
    """

    split: str | None = None
    dataset: str | None = None
    dataset_config: str | None = None
    revision: str | None = None


Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")
"""The rows that a task has: to train on, for every choice, and for the final evaluation."""


class Task(TaskHead, Protocol):
    """What a model is for: a head and its losses, which the class knows, and the files and columns of a recipe.

    Attributes:
        type: Its name in a recipe.
        train_file: Table to train on, or several.
        test_file: Table that only the final evaluation opens, likewise.
        validation_file: Table for every choice, likewise; None holds out a share of the training table.
        further_tests: Further tables that the final evaluation measures, by name.
        dataset: Id or folder of a dataset with splits, instead of files.
        validation_share: That share.
        unlabelled_files: Texts without labels to train on, which the teacher alone labels.
        metric: The metric, or several; see `edgemin_hf.tasks.metrics.metrics_of`.
        metrics: The same ready to use, the one that decides first.
        max_length: Tokens after which an example is cut.
    """

    type: str
    train_file: Files
    test_file: Files
    validation_file: Files | None
    dataset: str | None
    further_tests: dict[str, Files | Split]
    validation_share: float
    unlabelled_files: list[str]
    metric: Choice | list[Choice]
    metrics: list[Metric]
    max_length: int

    @property
    def holds_out(self) -> bool:
        """Whether validation rows are held out from those to train on."""
        ...

    def field(self, part: Part) -> str:
        """Return the name of the setting that says where a part's rows come from."""
        ...

    def path(self, root: Path, part: Part) -> Path:
        """Return the file of a part's rows; ValueError where there is none."""
        ...

    def train_paths(self, root: Path) -> list[Path]:
        """Return the files of the training rows; ValueError where there are none."""
        ...

    def named_path(self, root: Path, named: Files | Split, *, with_labels: bool = True) -> Path:
        """Return the file of rows that are named as a part's are; ValueError where there is none."""
        ...

    def table(self, root: Path, part: Part) -> Dataset:
        """Read a part's rows as they are."""
        ...

    @property
    def metric_name(self) -> str:
        """Name of the metric that decides."""
        ...

    def settle_metrics(self, root: Path, labels: Mapping[str, int]) -> None:
        """Find the modules and labels that metrics ask for; ValueError where there are no such."""
        ...

    @property
    def reading(self) -> Reading:
        """How texts are read and what is made of outputs, for what runs an artefact without this package's tasks."""
        ...

    @property
    def threshold(self) -> float | None:
        """Probability from which a label is given; None where an example has one answer."""
        ...

    def read(self, path: Path) -> Dataset:
        """Read one of the task's tables; ValueError where that can't be done."""
        ...

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check the tables, and return what is worth knowing of them.

        Args:
            root: The folder that their paths are relative to.
            teacher: The labels of a teacher that is not fine-tuned, which knows them already.

        Raises:
            ValueError: Where they will not do; the message begins with the field's name.
        """
        ...

    def check_table(self, path: Path, config: PretrainedConfig | None = None) -> None:
        """Check one table, and that a model of a configuration knows its labels; ValueError where not."""
        ...

    def check_teacher(self, root: Path, teacher: PretrainedConfig) -> None:
        """Check that a teacher, used as it is, is one for the data; ValueError where not."""
        ...

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check that a model of a configuration knows a table's labels; ValueError where not."""
        ...

    def labels(self, root: Path) -> list[str]:
        """Return the names of the labels, in the order of their numbers."""
        ...

    def model_kwargs(self, label_ids: Mapping[str, int]) -> dict[str, object]:
        """Return what tells a checkpoint of the task's labels: arguments of `from_pretrained`."""
        ...

    def cut_rows(self, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many of a table's rows lose some of their text by `max_length`."""
        ...

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the texts without labels."""
        ...

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training rows and the validation rows as they are."""
        ...

    def train_table(self, root: Path, seed: int) -> Dataset:
        """Read the training rows as they are, without those that are held out."""
        ...

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Read, split and tokenise the training rows and the validation rows."""
        ...

    def test(self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int]) -> Dataset:
        """Read and tokenise the test table."""
        ...

    def fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return a tokenizer that reads the task's examples, to be saved with models; ValueError where it can't."""
        ...

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise a table's texts, and turn its labels into the numbers of "labels"; without them `UNLABELLED`.

        Of a ragged task there may be several rows of an example, one after the other, with the columns that
        `predictions` and `references` need.
        """
        ...

    def collation(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> Collation | None:
        """Return how batches of its rows are made to train on; None where they are padded as they are."""
        ...

    def texts_in(self, table: Dataset) -> Iterator[Text]:
        """Yield a table's texts, or pairs of texts, a row each."""
        ...

    def texts(self, root: Path, count: int, seed: int) -> list[Text]:
        """Return some validation texts or pairs, as they are."""
        ...

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return what a model's outputs say, one answer an example.

        Args:
            outputs: What it gives for some rows.
            rows: These rows, as `tokenized` makes them; only a ragged task needs them.
        """
        ...

    def alternatives(self, outputs: Outputs, rows: Dataset) -> Sequence[object]:
        """Return what else could have been answered, for each example; nothing where that is not told."""
        ...

    def chooses(self, table: Dataset) -> bool:
        """Return whether `calibrated` chooses something by the rows of a validation table."""
        ...

    def calibrated(self, outputs: Outputs, rows: Dataset) -> Self:
        """Return the task with what is chosen for a model by its outputs on validation rows; itself if nothing is."""
        ...

    def references(self, rows: Dataset) -> Answers:
        """Return the truth of tokenised rows with labels, one an example."""
        ...

    def compute_metrics(self, prediction: EvalPrediction, rows: Dataset) -> dict[str, float]:
        """Compute the metrics of predictions for some rows: with these given, the `compute_metrics` of a Trainer."""
        ...

    def value(self, references: Answers, predictions: Answers) -> float:
        """Compute the metric that decides, alone."""
        ...

    def measure(self, references: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions by the task's metrics, with their 95% intervals, and each label where names are given."""
        ...
