"""The student's file to deploy beside its teacher: what the stage `evaluate` tells beyond metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from edgemin_hf.benchmark.measure import ModelFile, arrays_of, predict_rows
from edgemin_hf.benchmark.rows import Row, deployed
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.data.perturbation import PERTURBATIONS
from edgemin_hf.data.tables import values_of
from edgemin_hf.recipe.context import Context
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.labels import ordered
from edgemin_hf.tasks.metrics import Answers, Measurement
from edgemin_hf.tasks.metrics.agreement import agreement
from edgemin_hf.tasks.metrics.analysis import Analysis
from edgemin_hf.tasks.metrics.calibration import calibration
from edgemin_hf.tasks.metrics.class_changes import class_changes
from edgemin_hf.tasks.metrics.slices import Estimate, Group, Slices, slices
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.tasks.text import TextTask

ANALYSIS = "analysis.json"
LENGTH_BUCKET = "length_bucket"
"""The groups that are made of the texts' lengths: their quartiles, in the student's tokens."""
MOST_GROUPS = 50
TEACHER: Row = ("teacher", "onnxruntime", "fp32")


@dataclass(frozen=True)
class Models:
    """The models that were measured, and what they said of the test table.

    Attributes:
        files: The file of each.
        tokenizers: The tokenizers of "student" and, where there is one, "teacher".
        tasks: The task, with what was chosen for each.
        outputs: What each gave.
        predictions: What that says.
    """

    files: Mapping[Row, ModelFile]
    tokenizers: Mapping[str, PreTrainedTokenizerBase]
    tasks: dict[Row, TableTask] = field(default_factory=dict)
    outputs: dict[Row, Outputs] = field(default_factory=dict)
    predictions: dict[Row, Answers] = field(default_factory=dict)


def check_slices(context: Context, by: Sequence[str], robustness: bool) -> None:
    """Check that what is asked can be told of the task and its test table.

    Args:
        context: The recipe at work.
        by: The columns.
        robustness: Whether texts are to be perturbed.

    Raises:
        ValueError: If not; the message begins with the setting's name.
    """
    task = context.task
    if robustness and not isinstance(task, TextTask):
        raise ValueError(f"robustness: true for {task.type}; allowed: for an answer to a text or a pair of texts")
    if by and task.answer in ("ranking", "masked tokens"):
        raise ValueError(f"slices: {by[0]} for {task.type}; allowed: where each row of the test table has an answer")
    if repeated := [name for name in by if by.count(name) > 1]:
        raise ValueError(f"slices: {repeated[0]} twice; allowed: each column once")
    columns = [name for name in by if name != LENGTH_BUCKET]
    if not columns:
        return
    table = task.table(context.root, "test")
    for name in columns:
        if name not in table.column_names:
            known = ", ".join([*table.column_names, LENGTH_BUCKET])
            raise ValueError(f"slices: {name}; allowed: a column of task.{task.field('test')}: {known}")
        if (count := len(set(map(str, values_of(table, name))))) > MOST_GROUPS:
            raise ValueError(f"slices: {name}, which has {count:,} values; allowed: {MOST_GROUPS} groups or fewer")


def analyse(context: Context, models: Models, truth: Answers, by: Sequence[str], robustness: bool) -> Analysis:
    """Compare the student's file to deploy with the teacher.

    Args:
        context: The recipe at work.
        models: What was measured.
        truth: The truth of the test table, one an example.
        by: The columns whose groups are measured.
        robustness: Whether perturbed texts are measured too.

    Returns:
        What there is to tell.
    """
    task, metric = context.task, context.task.metrics[0]
    student = deployed(list(models.files))
    teacher = TEACHER if TEACHER in models.files else None
    ours, theirs = models.predictions[student], None if teacher is None else models.predictions[teacher]
    names = sorted(context.label_ids, key=lambda name: context.label_ids[name])
    return Analysis(
        teacher,
        student,
        agreement=None if theirs is None else agreement(metric, task.answer, theirs, ours),
        classes=() if theirs is None else tuple(class_changes(metric, task.answer, truth, theirs, ours, names)),
        calibration={
            row[0]: calibration(np.array(models.outputs[row]), np.asarray(truth))
            for row in (teacher, student)
            if row is not None and task.problem_type == "single_label_classification" and not task.ragged
        },
        slices=tuple(_slices(context, models, name, truth, theirs, ours) for name in by),
        robustness=_robustness(context, models, truth, student, teacher) if robustness else (),
    )


def read_analysis(folder: Path) -> Analysis | None:
    """Read what `evaluate` told; None of a run whose version did not."""
    file = folder / ANALYSIS
    return Analysis.from_dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def measured_on(
    context: Context,
    table: Dataset,
    models: Models,
    rows: Sequence[Row],
    title: str,
    names: Sequence[str] = (),
    truth: Answers | None = None,
) -> dict[Row, Measurement]:
    """Measure files on another table than the test table, with what was chosen for each on validation rows.

    Args:
        context: The recipe at work.
        table: The table.
        models: The models.
        rows: Those to measure.
        title: What the table is called on progress bars.
        names: The names of the labels, by number; without them no label is measured on its own.
        truth: The truth, one an example; None takes the table's.
    """
    tests = {
        model: context.task.tokenized(table, models.tokenizers[model], context.label_ids)
        for model in {row[0] for row in rows}
    }
    found: dict[Row, Measurement] = {}
    for row in rows:
        test, task, read = tests[row[0]], models.tasks[row], models.tokenizers[row[0]].model_input_names
        runner = load_runner(row[1], models.files[row].path, context.threads, task.auto_class, spinning=False)
        arrays = arrays_of(test.select_columns([name for name in test.column_names if name in read]))
        outputs = predict_rows(task, runner, arrays, test, f"{title} of {' / '.join(row)}")
        right = task.references(test) if truth is None else truth
        found[row] = task.measure(right, task.predictions(outputs, test), names)
    return found


def _slices(
    context: Context, models: Models, by: str, truth: Answers, teacher: Answers | None, student: Answers
) -> Slices:
    """Measure the groups of a column, in the order of their names, or of the texts' lengths."""
    task, table = context.task, context.task.table(context.root, "test")
    if by in table.column_names:
        values = [" ".join(str(value).split()) or "(empty)" for value in values_of(table, by)]
        order = ordered(set(values))
    else:
        texts = list(task.texts_in(table))
        tokenizer = models.tokenizers["student"]
        counts = [
            len(tokenizer(*([text] if isinstance(text, str) else text), verbose=False)["input_ids"]) for text in texts
        ]
        values, order = length_buckets(np.array(counts).reshape(len(table), -1).sum(axis=1).tolist())
    return slices(by, values, task.metrics[0], truth, teacher, student, order)


def length_buckets(lengths: Sequence[int]) -> tuple[list[str], list[str]]:
    """Return the bucket of each length, and the buckets in their order: quartiles, equal ones together.

    Example:
        >>> from edgemin_hf.recipe.analysis import length_buckets
        >>> length_buckets([3, 9, 5, 12, 30, 7, 8, 4])[1]
        ['3 to 4 tokens', '5 to 7 tokens', '8 to 9 tokens', '12 to 30 tokens']
    """
    edges = np.unique(np.quantile(lengths, (0.25, 0.5, 0.75)))
    numbers = np.searchsorted(edges, lengths)
    names: dict[int, str] = {}
    for number in sorted(set(numbers.tolist())):
        some = [length for length, its in zip(lengths, numbers, strict=True) if its == number]
        low, high = min(some), max(some)
        names[number] = f"{low} to {high} tokens" if low < high else f"{low} tokens"
    return [names[number] for number in numbers.tolist()], list(names.values())


def _robustness(
    context: Context, models: Models, truth: Answers, student: Row, teacher: Row | None
) -> tuple[Group, ...]:
    """Measure both models on the test texts as they are, and perturbed."""
    task = context.task
    assert isinstance(task, TextTask)  # noqa: S101 - `check_slices`
    table, rows = task.table(context.root, "test"), [row for row in (teacher, student) if row is not None]
    measured = {"as they are": {row: task.measure(truth, models.predictions[row]) for row in rows}}
    for name, perturb in PERTURBATIONS.items():
        changed = table
        for column in task.text_columns:
            texts = [perturb(str(text)) for text in values_of(table, column)]
            changed = changed.remove_columns(column).add_column(column, texts)
        # Of the texts as they are: perturbed, two queries may be the same one, and their passages would be one ranking.
        measured[name] = measured_on(context, changed, models, rows, name, truth=truth)
    return tuple(
        Group(name, len(table), None if teacher is None else _estimate(found[teacher]), _estimate(found[student]))
        for name, found in measured.items()
    )


def _estimate(found: Measurement) -> Estimate:
    low, high = found["ci95"]
    return Estimate(found["value"], (low, high))
