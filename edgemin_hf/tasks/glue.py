"""GLUE (arXiv 1804.07461) by name: columns, splits, labels and metrics of its nine tasks, and the files for its server.

The columns are those of the Hub's nyu-mll/glue. The final evaluation is on GLUE's own validation sets, since its test
sets have no labels; rows for every choice are held out from those to train on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from edgemin_hf.data.tables import check_table
from edgemin_hf.tasks.base import Files
from edgemin_hf.tasks.labels import number_of, shown
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.tasks.text_classification import TextClassification

GlueName = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]


class _Facts(NamedTuple):
    """What there is to know of a task.

    Attributes:
        columns: Its columns of texts.
        labels: Its labels in the order of their numbers; none of scores.
        metrics: Its metrics by their names in `evaluate`; the first decides.
        submission: Name of the file for GLUE's server.
        as_numbers: Whether that holds labels by number.
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    submission: str
    as_numbers: bool = True


_SENTENCES, _ENTAILS = ("sentence1", "sentence2"), ("entailment", "not_entailment")
_FACTS: Mapping[str, _Facts] = {
    "cola": _Facts(("sentence",), ("unacceptable", "acceptable"), ("matthews_correlation",), "CoLA"),
    "sst2": _Facts(("sentence",), ("negative", "positive"), ("accuracy",), "SST-2"),
    "mrpc": _Facts(_SENTENCES, ("not_equivalent", "equivalent"), ("accuracy", "f1"), "MRPC"),
    "qqp": _Facts(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1"), "QQP"),
    "stsb": _Facts(_SENTENCES, (), ("pearsonr", "spearmanr"), "STS-B"),
    "mnli": _Facts(
        ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), ("accuracy",), "MNLI-m", False
    ),
    "qnli": _Facts(("question", "sentence"), _ENTAILS, ("accuracy",), "QNLI", False),
    "rte": _Facts(_SENTENCES, _ENTAILS, ("accuracy",), "RTE", False),
    "wnli": _Facts(_SENTENCES, ("not_entailment", "entailment"), ("accuracy",), "WNLI"),
}
_HIGHEST = 5.0
"""The highest score of STS-B; the lowest is 0."""


@dataclass
class Glue:
    """A task of GLUE, as a recipe names it.

    Attributes:
        name: Which of GLUE's tasks.
        data: Id of a dataset on the Hub with the tasks as its configurations, such as nyu-mll/glue; or a folder with
            the task's tables, train.tsv, dev.tsv and so on, in it or in a folder of the task's name.
        text_column: Column of the texts; None is that of the Hub's dataset.
        text_pair_column: Column of the second texts; likewise.
        label_column: Column of the labels.
        metric: As of the other tasks; "" takes GLUE's.
        validation_share: Share of the rows to train on that is held out for every choice.
        revision: Branch, tag or commit of a dataset on the Hub.
        unlabelled_files: Further texts, which the teacher alone labels.
        max_length: Tokens after which a text, or a pair together, is cut.
    """

    name: GlueName
    data: str
    text_column: str | None = None
    text_pair_column: str | None = None
    label_column: str = "label"
    metric: str | dict[str, Any] | list[str | dict[str, Any]] = ""
    validation_share: float = 0.1
    revision: str | None = None
    unlabelled_files: list[str] = field(default_factory=list)
    max_length: int = 128
    type: Literal["glue"] = "glue"

    def task(self) -> TextTask:
        """Return the task that it is."""
        facts, matched = _FACTS[self.name], "_matched" if self.name == "mnli" else ""
        first, second = (*facts.columns, None)[:2]
        kind = GlueClassification if facts.labels else GlueRegression
        return kind(
            glue=self.name,
            dataset=self.data,
            dataset_config=self.name,
            test_split=f"validation{matched}",
            further_tests={"mismatched": "validation_mismatched"} if matched else {},
            text_column=self.text_column or str(first),
            text_pair_column=self.text_pair_column or second,
            label_column=self.label_column,
            metric=self.metric or list(facts.metrics),
            validation_share=self.validation_share,
            revision=self.revision,
            unlabelled_files=self.unlabelled_files,
            max_length=self.max_length,
        )


def _submissions(name: str) -> dict[str, str]:
    file = _FACTS[name].submission
    if name == "mnli":
        return {file: "test_matched", "MNLI-mm": "test_mismatched"}
    return {file: "test"}


def _official(glue: str, names: Sequence[str]) -> dict[int, int]:
    """Return GLUE's number of each of a model's labels, which may have names of its own (LABEL_0), by their numbers.

    Raises:
        ValueError: If they are not GLUE's.
    """
    theirs, found = {name: number for number, name in enumerate(names)}, dict[int, int]()
    for number, name in enumerate(_FACTS[glue].labels):
        own = number_of(name, theirs)
        own = number_of(str(number), theirs) if own is None else own
        if own is not None:
            found[own] = number
    if len(found) < len(theirs):
        raise ValueError(f"labels {shown(names)}; allowed for a submission: {shown(_FACTS[glue].labels)}")
    return found


def _has_submissions(task: TextTask, root: Path) -> bool:
    """Check the tables whose predictions are wanted, and return whether any are there; ValueError where one is bad."""
    paths = list[Path]()
    for named in task.submissions.values():
        with suppress(ValueError):  # they need not be there
            paths.append(task.named_path(root, named, with_labels=False))
    for path in paths:
        try:
            check_table(path, *task.text_columns)
        except ValueError as error:
            raise ValueError(f"data: {error}") from None
    return bool(paths)


@dataclass
class GlueClassification(TextClassification):
    """A classification of GLUE; `Glue` makes it. Labels have GLUE's order, by name or by number.

    Attributes:
        glue: Which one.
    """

    glue: str = ""

    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of a table's labels, in GLUE's order where they are GLUE's."""
        names = super().names_in(table)
        official = _FACTS[self.glue].labels
        return [name for name in official if name in names] if set(names) <= set(official) else names

    @property
    def submissions(self) -> Mapping[str, Files]:
        """The splits that GLUE's server asks for, by the names of their files."""
        return _submissions(self.glue)

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check the tables, and those whose predictions are wanted with the labels for them. See `TableTask.check`."""
        notes = super().check(root, teacher)
        if _has_submissions(self, root):
            names = sorted(teacher, key=lambda name: teacher[name]) if teacher else self.labels(root)
            try:
                _official(self.glue, names)
            except ValueError as error:
                raise ValueError(f"data: {error}") from None
        return notes

    def submitted(self, predictions: Any, names: Sequence[str]) -> list[str]:
        """Return predictions as GLUE's server takes them."""
        facts, official = _FACTS[self.glue], _official(self.glue, names)
        numbers = [official[int(number)] for number in predictions]
        return [str(number) if facts.as_numbers else facts.labels[number] for number in numbers]


@dataclass
class GlueRegression(Regression):
    """STS-B; `Glue` makes it.

    Attributes:
        glue: Which one.
    """

    glue: str = ""

    @property
    def submissions(self) -> Mapping[str, Files]:
        """The split that GLUE's server asks for, by the name of its file."""
        return _submissions(self.glue)

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check the tables, and the one whose predictions are wanted. See `TableTask.check`."""
        notes = super().check(root, teacher)
        _has_submissions(self, root)
        return notes

    def submitted(self, predictions: NDArray[np.float32], names: Sequence[str]) -> list[str]:
        """Return scores as GLUE's server takes them."""
        return [f"{score:.3f}" for score in np.clip(predictions, 0, _HIGHEST)]
