"""What a task's tables must be, to themselves and to each other, and what is worth knowing of them before a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import ceil, floor
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from edgemin_hf.data.sources import notes_on_source
from edgemin_hf.data.tables import Text, notes_on, values_of
from edgemin_hf.tasks.base import PARTS, Files, Split, Task
from edgemin_hf.tasks.labels import classes_of, describe_order, number_of, similar
from edgemin_hf.tasks.metrics import Answer
from edgemin_hf.tasks.splits import why_not_stratified


class TabularTask(Task, Protocol):
    """What is asked of a task here, beside what each has."""

    answer: ClassVar[Answer]
    stratify: bool

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the labels."""
        ...

    def files(self, root: Path, named: Files | Split) -> list[Path]:
        """Return the files of rows that are named."""
        ...

    def check_rows(self, path: Path) -> None:
        """Check the texts and labels of a file's rows."""
        ...

    def notes_on(self, table: Dataset) -> list[str]:
        """Return what is worth knowing of a table's rows."""
        ...

    def check_training(self, table: Dataset, teacher: Mapping[str, int] | None = None) -> None:
        """Check that the training rows have something to learn."""
        ...

    def classes(self, table: Dataset) -> list[int]:
        """Return the number of each row's label."""
        ...

    def names_in(self, table: Dataset) -> list[str]:
        """Return the names of a table's labels."""
        ...

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> object:
        """Return the labels of a table's rows as numbers; ValueError where a label is not known."""
        ...


def check_tables(task: TabularTask, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
    """Check the tables of a task; see `TableTask.check`.

    Returns:
        Lines on what was found: the labels' order, how files were read, rows that stand in two tables.
    """
    paths: dict[str, Path] = {}
    tables: dict[str, Dataset] = {}
    learned: list[Path] = []
    parts = [task.field(part) for part in PARTS if part != "validation" or not task.holds_out]
    further = {f"further_tests.{name}": named for name, named in task.further_tests.items()}
    for name, named in {**{part: getattr(task, part) for part in parts}, **further}.items():
        try:
            files = task.files(root, named)
            _check_apart(files, learned, task.field("train"))
            learned = learned or files
            for file in files[1:] and files:  # each, so that an error tells which
                task.check_rows(file)
            path = task.named_path(root, named)
            if name in further:
                _check_another(path, paths, task.field("train"))
            task.check_table(path)
            paths[name] = path
        except (ValueError, OSError) as error:  # such as a file without rights
            raise ValueError(f"{name}: {error}") from None
        tables[name] = task.read(paths[name])
    train = tables[task.field("train")]
    task.check_training(train, teacher)
    names = task.names_in(train)
    labels = {label: number for number, label in enumerate(names)}
    task.settle_metrics(root, teacher or labels)
    for name in list(tables)[1:]:
        _check_known(task, name, tables[name], labels, teacher)
    _check_counts(task, {name: len(table) for name, table in tables.items()})
    notes = [f"{name}: {note}" for name, path in paths.items() for note in [*notes_on_source(path), *notes_on(path)]]
    for name, table in tables.items():
        notes += [f"{name}: {note}" for note in _notes_on_rows(task, table)]
    notes += [*shared_rows(task, paths), *_repeated_rows(task, tables)]
    if task.stratify and task.holds_out and (why := why_not_stratified(task.classes(train), task.validation_share)):
        notes.append(f"stratify: {why}, so validation rows are drawn from all alike")
    if task.unlabelled_files:
        notes += _notes_on_unlabelled(task, root, tables)
    return [*_notes_on_labels(task, train, names, teacher), *notes]


def _check_apart(files: Sequence[Path], learned: Sequence[Path], field: str) -> None:
    """Check that of several files, such as a pattern's, none is one that is learned from."""
    for file in files if len(files) + len(learned) > 2 else []:
        if any(file.resolve() == other.resolve() for other in learned):
            raise ValueError(f"{file}, which is among the files of {field}; expected: other files")


def _check_another(path: Path, known: Mapping[str, Path], train: str) -> None:
    """Check that a further test set is no other one's file, such as that of a configuration which is not there."""
    for name, other in known.items():
        if name != train and path == other:  # of that of training the texts tell
            raise ValueError(f"{path}, which is {name} too; expected: another table")


def _check_counts(task: TabularTask, rows: Mapping[str, int]) -> None:
    """Check that no part is empty, and none of which no correlation or interval can be told."""
    fields = {part: task.field(part) for part in PARTS}
    count, held_out, least = rows[fields["train"]], task.holds_out, 2 if task.answer == "score" else 1
    validation = ceil(task.validation_share * count) if held_out else rows[fields["validation"]]
    train = floor((1 - task.validation_share) * count) if held_out else count
    if held_out and (train < 1 or validation < least):
        told = f"{count} row(s), of which {validation} are held out for validation"
        raise ValueError(f"{fields['train']}: {told}; expected: more, or a {fields['validation']}")
    further = [(f"further_tests.{name}", 2) for name in task.further_tests]
    for name, wanted in ((fields["validation"], least), (fields["test"], 2), *further):
        if rows.get(name, wanted) < wanted:
            raise ValueError(f"{name}: {rows[name]} row(s); expected: {wanted} or more")


def _check_known(
    task: TabularTask, name: str, table: Dataset, labels: Mapping[str, int], teacher: Mapping[str, int] | None
) -> None:
    """Check that labels are those of the training table, or at least of a teacher that knows its own."""
    try:
        task.encoded(table, labels)
    except ValueError as error:
        try:
            task.encoded(table, teacher or labels)
        except ValueError:
            raise ValueError(f"{name}: {error}") from None


def _notes_on_labels(
    task: TabularTask, table: Dataset, names: list[str], teacher: Mapping[str, int] | None
) -> list[str]:
    if not task.compares_label_names:
        return []
    notes = [describe_order(names if teacher is None else sorted(teacher, key=lambda name: teacher[name]))]
    if teacher is not None:
        numbers = {name: number_of(name, teacher, classes_of(table, task.labels_column)) for name in names}
        by_number = {number: name for name, number in teacher.items()}
        renamed = [
            f"{name} is {by_number[number]}"
            for name, number in numbers.items()
            if number is not None and name not in teacher
        ]
        if renamed:
            notes.append(f"labels of the data by the teacher's names: {', '.join(renamed)}")
    notes += [f"labels that look alike: {', '.join(map(repr, group))}" for group in similar(names)]
    return notes


def _notes_on_rows(task: TabularTask, table: Dataset) -> list[str]:
    notes = task.notes_on(table)
    if task.labels_column in table.column_names:
        spaced = sum(isinstance(v, str) and v != v.strip() for v in values_of(table, task.labels_column))
        if spaced:
            notes.append(f"white space around {spaced} label(s) left out")
    return notes


def shared_rows(task: Task, files: Mapping[str, Path]) -> list[str]:
    """Return how many rows of each table stand in another too.

    Args:
        task: The task.
        files: The tables by what they are for, the training table first.

    Raises:
        ValueError: If the rows of another table are those of the training table.
    """
    hashes = {name: _hashes(task.texts_in(task.read(file))) for name, file in files.items()}
    train, *others = hashes
    for name in others:
        if len(hashes[name]) and np.array_equal(np.sort(hashes[train]), np.sort(hashes[name])):
            raise ValueError(f"{name}: {files[name].name}, whose texts are those of {train}; expected: other rows")
    return _notes_on_shared(hashes)


def common_rows(rows: Mapping[str, Iterable[Text]]) -> list[str]:
    """Return how many rows of each table stand in another too, of tables by what they are for."""
    return _notes_on_shared({name: _hashes(texts) for name, texts in rows.items()})


def _notes_on_shared(hashes: Mapping[str, NDArray[np.int64]]) -> list[str]:
    notes = []
    for first, second in combinations(hashes, 2):
        others = hashes[second]
        if shared := int(np.isin(others, hashes[first]).sum()):
            notes.append(f"{second}: {shared:,} of {len(others):,} rows have the text of a row of {first}")
    return notes


def _repeated_rows(task: TabularTask, tables: Mapping[str, Dataset]) -> list[str]:
    """Return how many training rows repeat another's text, where some are held out."""
    name = task.field("train")
    count = len(tables[name])
    repeated = count - len(np.unique(_hashes(task.texts_in(tables[name]))))
    if not task.holds_out or not repeated:
        return []
    return [f"{name}: {repeated:,} of {count:,} rows repeat another's text, and may be held out beside it"]


def _notes_on_unlabelled(task: TabularTask, root: Path, tables: Mapping[str, Dataset]) -> list[str]:
    """Return how many texts without labels stand in a table that chooses or measures."""
    try:
        ours = _hashes(task.texts_in(task.unlabelled_table(root)))
    except (ValueError, OSError) as error:
        raise ValueError(f"unlabelled_files: {error}") from None
    notes = [f"unlabelled_files: {len(ours):,} texts"]
    for name in list(tables)[1:]:
        if shared := int(np.isin(ours, _hashes(task.texts_in(tables[name]))).sum()):
            notes.append(f"unlabelled_files: {shared:,} of {len(ours):,} rows have the text of a row of {name}")
    return notes


def _hashes(texts: Iterable[Text]) -> NDArray[np.int64]:
    """Return a number for each text or pair, the same for the same texts in this process, int64 (rows,)."""
    sides = ((text,) if isinstance(text, str) else text for text in texts)
    return np.fromiter((hash(tuple(side.strip() for side in text)) for text in sides), np.int64)
