"""Telling a student beside its teacher: sentences for the card, and tables for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgemin_hf.report.tables import CaptionedTable, Table, capitalized
from edgemin_hf.tasks.metrics import Metric, metric_named
from edgemin_hf.tasks.metrics.agreement import Agreement
from edgemin_hf.tasks.metrics.analysis import Analysis
from edgemin_hf.tasks.metrics.calibration import Calibration
from edgemin_hf.tasks.metrics.class_changes import ClassChange
from edgemin_hf.tasks.metrics.slices import LEAST, Estimate, Group, Slices

_ENDS = 5
"""Classes that are shown unfolded: so many that lost most, and so many that gained most."""
_HEADING_BESIDE, _HEADING = "Beside its teacher", "How far to rely on it"


@dataclass(frozen=True)
class ShownAnalysis:
    """What is shown of an analysis.

    Attributes:
        heading: What stands above it.
        sentences: What there is to tell, in words.
        classes: The classes that lost most and that gained most; None where there are none.
        every_class: All of them, where they are more.
        tables: Further tables: groups, robustness, calibration.
    """

    heading: str
    sentences: list[str]
    classes: Table | None
    every_class: Table | None
    tables: list[CaptionedTable]


def shown_analysis(found: Analysis, metric: str) -> ShownAnalysis | None:
    """Lay out what was found of a student beside its teacher.

    Args:
        found: What was found.
        metric: Name of the metric that decides.

    Returns:
        What is shown; None where there is nothing to tell, as of masked tokens.

    Example:
        >>> from edgemin_hf.report.analysis import shown_analysis
        >>> from edgemin_hf.tasks.metrics.agreement import Agreement
        >>> from edgemin_hf.tasks.metrics.analysis import Analysis
        >>> student, same = ("student", "onnxruntime", "int8"), Agreement("accuracy", 0.96, (0.95, 0.97))
        >>> shown_analysis(Analysis(None, student, agreement=same), "accuracy").sentences
        ["It gives the teacher's answer to 96.0% [95.0, 97.0] of the test examples, right or wrong."]
    """
    deciding = metric_named(metric)
    few, every = _class_tables(found.classes)
    tables = [_slices_table(one) for one in found.slices]
    if found.robustness:
        caption = f"{capitalized(deciding.axis)} on the test texts as they are, and as people in a hurry write them"
        tables.append(CaptionedTable(caption, _group_table("texts", found.robustness, deciding)))
    heading, sentences = _HEADING if found.teacher is None else _HEADING_BESIDE, list(_sentences(found, deciding))
    return ShownAnalysis(heading, sentences, few, every, tables) if sentences or tables else None


def _sentences(found: Analysis, metric: Metric) -> Iterator[str]:
    if found.agreement is not None:
        yield _agreement(found.agreement)
    if found.classes:
        yield _classes(found.classes)
    if student := found.calibration.get("student"):
        yield _calibration(student, found.calibration.get("teacher"))
    yield from (_gap(one, one.student_gap) for one in found.slices if one.student_gap is not None)
    if found.robustness:
        yield _robustness(found.robustness, metric)


def _agreement(found: Agreement) -> str:
    metric = metric_named(found.metric)
    told = _written(Estimate(found.value, found.ci95), metric)
    if found.metric in ("accuracy", "exact_match"):
        value, _, interval = told.partition(" ")
        return f"It gives the teacher's answer to {value}% {interval} of the test examples, right or wrong."
    return f"Its answers against the teacher's, taken for the truth: {metric.axis} {told}."


def _classes(found: Sequence[ClassChange]) -> str:
    lost, won = sum(one.ci95[1] < 0 for one in found), sum(one.ci95[0] > 0 for one in found)
    return (
        f"Of {len(found)} labels {lost} lost F1 against the teacher, and {won} gained some, by a 95% interval; "
        f"about {0.05 * len(found):.0f} would by chance alone."
    )


def _calibration(student: Calibration, teacher: Calibration | None) -> str:
    theirs = "" if teacher is None else f", the teacher's {100 * teacher.ece:.1f}"
    return (
        f"It is {100 * student.confidence:.1f}% sure of its labels on average, and right in "
        f"{100 * student.accuracy:.1f}%: its expected calibration error ({len(student.bins)} bins of equal mass) is "
        f"{100 * student.ece:.1f} points{theirs}."
    )


def _gap(found: Slices, gap: Estimate) -> str:
    metric = metric_named(found.metric)
    sign = 1 if metric.greater_is_better else -1
    best, worst = (end(found.compared, key=lambda group: sign * group.student.value) for end in (max, min))
    told = (
        f"By {_column(found.by)}, it is best on {best.name} and worst on {worst.name}, a gap of "
        f"{_written(gap, metric)} points"
    )
    if found.teacher_gap is None or found.widened is None:
        return f"{told}."
    widened = _written(found.widened, metric, sign="+")
    return f"{told}; the teacher's is {_written(found.teacher_gap, metric)}, the difference {widened}."


def _robustness(found: Sequence[Group], metric: Metric) -> str:
    parts = [
        f"{_number(group.student, metric)} {group.name}"
        + ("" if group.teacher is None else f" (teacher {_number(group.teacher, metric)})")
        for group in found
    ]
    return f"{capitalized(metric.axis)} on the test texts: {', '.join(parts)}."


def _class_tables(found: Sequence[ClassChange]) -> tuple[Table | None, Table | None]:
    """Return the table of the classes at both ends, and that of all where they are more."""
    if not found:
        return None, None
    headers = ["label", "teacher F1 %", "student F1 %", "change [95%]", "support"]
    rows = [
        [
            one.name,
            f"{100 * one.teacher:.1f}",
            f"{100 * one.student:.1f}",
            f"{100 * one.change:+.1f} [{100 * one.ci95[0]:+.1f}, {100 * one.ci95[1]:+.1f}]",
            f"{one.support:,}",
        ]
        for one in found
    ]
    if len(rows) <= 2 * _ENDS:
        return Table(headers, rows), None
    return Table(headers, [*rows[:_ENDS], *rows[-_ENDS:]]), Table(headers, rows)


def _slices_table(found: Slices) -> CaptionedTable:
    metric = metric_named(found.metric)
    table = _group_table("group", found.groups, metric)
    if found.student_gap is not None:
        gaps = [gap for gap in (found.teacher_gap, found.student_gap) if gap is not None]
        table.rows.append(["gap, best to worst", "", *(_written(gap, metric) for gap in gaps)])
    caption = f"{capitalized(metric.axis)} by {_column(found.by)}, with 95% intervals"
    if found.student_gap is not None and len(found.compared) < len(found.groups):
        caption += f"; the gap is one of groups of {LEAST} examples or more"
    if found.widened is not None:
        caption += f"; the student's gap less the teacher's: {_written(found.widened, metric, sign='+')} points"
    return CaptionedTable(caption, table)


def _group_table(header: str, groups: Sequence[Group], metric: Metric) -> Table:
    headers = [header, "examples", *["teacher"] * (groups[0].teacher is not None), "student"]
    rows = [
        [
            group.name,
            f"{group.n:,}",
            *(_written(one, metric) for one in (group.teacher, group.student) if one is not None),
        ]
        for group in groups
    ]
    return Table(headers, rows)


def _column(name: str) -> str:
    """Return what a column is called in a sentence."""
    return "length" if name == "length_bucket" else name.replace("_", " ")


def _number(found: Estimate, metric: Metric, sign: str = "") -> str:
    return f"{metric.scale * found.value:{sign}.1f}"


def _written(found: Estimate, metric: Metric, sign: str = "") -> str:
    """Write a value with its interval, as the metric's are."""
    low, high = (metric.scale * end for end in found.ci95)
    return f"{_number(found, metric, sign)} [{low:{sign}.1f}, {high:{sign}.1f}]"
