"""What a rival is: something that is made of training rows in little time, and answers texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from edgemin_hf.data.tables import Text
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import LabelLoss
from edgemin_hf.tasks.metrics import Arrays
from edgemin_hf.tasks.table_task import TableTask

Call = Callable[[Text], NDArray[np.float32]]
"""From a text to logits or scores, (1, width) or (1, length, width): the whole call, tokenising included."""


@dataclass(frozen=True)
class Given:
    """What all rivals are made of.

    Attributes:
        task: The task.
        encoder: Folder of the teacher as the recipe names it, with its tokenizer; of the student's checkpoint where no
            model is the teacher.
        knows_task: Whether that one has been fine-tuned on the task.
        label_ids: Number of each label.
        train: Texts, or pairs of texts, to learn from.
        labels: Their labels as numbers: (rows,), of label sets (rows, labels); none of a ragged task.
        validation: Texts for every choice.
        validation_labels: Their labels.
        test: Texts that are answered.
        seed: Seed of all that is random.
        teacher: Folder of the fine-tuned teacher's graphs, with its tokenizer; None where there is none yet.
        tables: The training, validation and test rows of a ragged task as they are; None of another.
        loss: The loss with labels, as the task's settings have it; None is its `hard_loss`.
    """

    task: TableTask
    encoder: Path
    knows_task: bool
    label_ids: Mapping[str, int]
    train: Sequence[Text]
    labels: Arrays
    validation: Sequence[Text]
    validation_labels: Arrays
    test: Sequence[Text]
    seed: int
    teacher: Path | None = None
    tables: tuple[Dataset, Dataset, Dataset] | None = None
    loss: LabelLoss | None = None


@dataclass(frozen=True)
class Made:
    """A rival that was made.

    Attributes:
        name: What it is, in a table.
        scores: Logits or scores of the test texts (texts, labels); of a ragged task of the test rows.
        size_bytes: Size of the files that it needs to answer.
        call: Answers one text.
        rows: The test rows of a ragged task, as this rival reads them.
        task: The task with what was chosen for this rival by validation rows; None where nothing is.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.rivals import Made
        >>> coin = Made("a coin", np.zeros((3, 2), np.float32), size_bytes=0, call=lambda text: np.zeros((1, 2)))
        >>> coin.call("heads?").shape
        (1, 2)
    """

    name: str
    scores: Outputs
    size_bytes: int
    call: Call
    rows: Dataset | None = None
    task: TableTask | None = None


Maker = Callable[[Given, Path], list[Made]]
"""Makes a rival in an empty folder of its own; several where one training gives them, such as a model and its INT8."""


def joined(texts: Sequence[Text]) -> list[str]:
    """Return texts as they are, and pairs as one text each."""
    return [text if isinstance(text, str) else "\n".join(text) for text in texts]


def folder_bytes(folder: Path) -> int:
    """Return the size of a folder's files."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
