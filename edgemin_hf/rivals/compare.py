"""Rivals beside a student: the same test rows, latencies in turns, and whether the difference is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.benchmark.rows import Latency
from edgemin_hf.benchmark.whole_call import measure_calls
from edgemin_hf.rivals.base import Call, Given, Made, Maker
from edgemin_hf.runtime.one_call import Call as AnyCall
from edgemin_hf.tasks.metrics import Answers, difference
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class Ahead(Record):
    """By how much the student's metric is above a rival's, on the same rows.

    Attributes:
        value: The difference.
        ci95: Both ends of its 95% interval.
    """

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class RivalRow(Record):
    """What a rival, or the student beside it, is worth and costs.

    Attributes:
        name: What it is.
        metric: Name of the task's metric.
        value: Its value on the test rows.
        ci95: Both ends of its 95% interval.
        size_bytes: Size of the files that it needs.
        latency_ms: Latency of a whole call, text in and answer out, at one thread.
        seconds: What it took to make; None where that is another stage's.
        ahead: The student's lead; None in the row of the student.
        greater_is_better: Whether more is better, of a metric that does not ship.

    Example:
        >>> from edgemin_hf.benchmark import Latency
        >>> from edgemin_hf.rivals import RivalRow
        >>> row = RivalRow("a bag", "accuracy", 0.91, (0.90, 0.92), 14_000_000, Latency(3.5, 4.0, 5.0), seconds=9.0)
        >>> row.to_dict()["seconds"]
        9.0
    """

    name: str
    metric: str
    value: float
    ci95: tuple[float, float]
    size_bytes: int
    latency_ms: Latency
    seconds: float | None = None
    ahead: Ahead | None = None
    greater_is_better: bool = True


@dataclass(frozen=True)
class Comparison(Record):
    """The contents of a `rivals.json`: the student first, if there is one, then its rivals.

    Example:
        >>> from edgemin_hf.rivals import Comparison
        >>> Comparison.from_dict({"rows": []}).rows
        ()

    Attributes:
        rows: What was measured.
        left_out: A line on each rival that could not be made, and why.
    """

    rows: tuple[RivalRow, ...]
    left_out: tuple[str, ...] = ()


def make_rivals(makers: Mapping[str, Maker], given: Given, folder: Path) -> list[tuple[Made, float | None]]:
    """Make rivals, each in a folder of its own; return them with the seconds that they took."""
    made: list[tuple[Made, float | None]] = []
    for name, make in makers.items():
        (folder / name).mkdir()
        start = time.perf_counter()
        found = [_shifted(rival, given) for rival in make(given, folder / name)]
        made += [(rival, time.perf_counter() - start) for rival in found]
    return made


def _shifted(rival: Made, given: Given) -> Made:
    """Return a rival that says of a text that it is out of scope as readily as validation says, as the student does."""
    task = given.task
    if not isinstance(task, TextClassification) or task.out_of_scope_label is None:
        return rival
    label = given.label_ids[task.out_of_scope_label]
    held_out = np.concatenate([rival.call(text) for text in given.validation])
    scores = np.array(rival.scores)
    scores[:, label] += task.out_of_scope_shift(held_out, given.validation_labels, label)
    return replace(rival, scores=scores)


def compare(
    given: Given,
    labels: Answers,
    rivals: Sequence[tuple[Made, float | None]],
    student: Made | None = None,
    sentences: int = 500,
    rounds: int = 3,
    left_out: Sequence[str] = (),
) -> Comparison:
    """Measure rivals, and a student among them.

    Args:
        given: What they were made of.
        labels: The test rows' labels.
        rivals: The rivals, with the seconds that they took to make; None where another stage did.
        student: The student, made like a rival; None where there is none yet.
        sentences: Number of test texts, evenly spaced, that latency is measured on.
        rounds: Rounds over them.
        left_out: A line on each rival that could not be made.
    """
    all_made = [*([] if student is None else [(student, None)]), *rivals]
    chosen = np.linspace(0, len(given.test) - 1, min(sentences, len(given.test))).round().astype(int)
    texts = [given.test[row] for row in chosen]
    # What rows of a long example become one answer by is no part of a call, which answers one text.
    answer = None if given.task.ragged else given.task.predictions
    times = measure_calls({made.name: _answering(made.call, answer) for made, _ in all_made}, texts, rounds)
    answers = {made.name: (made.task or given.task).predictions(made.scores, made.rows) for made, _ in all_made}
    rows = []
    for made, seconds in all_made:
        found = given.task.measure(labels, answers[made.name])
        lead = None
        if student is not None and made is not student:
            value, ends = difference(given.task.metrics[0], labels, answers[student.name], answers[made.name])
            lead = Ahead(value, ends)
        latency = Latency.of(times[made.name])
        ends = (found["ci95"][0], found["ci95"][1])
        of_metric, more = (found["metric"], found["value"], ends), found.get("greater_is_better", True)
        rows.append(RivalRow(made.name, *of_metric, made.size_bytes, latency, seconds, lead, more))
    return Comparison(tuple(rows), tuple(left_out))


def _answering(call: Call, predictions: Callable[[NDArray[np.float32]], Answers] | None) -> AnyCall:
    """Return a call that also makes an answer of the logits, where there is more to do."""
    return call if predictions is None else lambda text: predictions(call(text))
