"""Telling a student's rivals: a table, and a verdict that the numbers write."""

from __future__ import annotations

from edgemin_hf.report.tables import Table, capitalized, text_table
from edgemin_hf.report.words import spoken
from edgemin_hf.rivals.compare import Ahead, Comparison, RivalRow
from edgemin_hf.tasks.metrics import metric_named


def rivals_table(found: Comparison) -> Table:
    """Lay out what the student and its rivals are worth and cost."""
    metric = metric_named(found.rows[0].metric)
    headers = ["way", metric.heading, "student ahead", "whole call (ms)", "size (MB)", "made in"]
    return Table(headers, [_cells(row) for row in found.rows])


def _cells(row: RivalRow) -> list[str]:
    low, high = row.ci95
    ahead = "" if row.ahead is None else _with_interval(row.ahead)
    return [
        row.name,
        f"{100 * row.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        ahead,
        f"{row.latency_ms.p50:.3g}",
        f"{row.size_bytes / 1e6:.1f}",
        "" if row.seconds is None else _duration(row.seconds),
    ]


def verdict(found: Comparison) -> list[str]:
    """Return a sentence for each rival: whether the student beats it, by how much, and at which latency.

    The last ones are on rivals that were left out, and why.
    """
    student, *rivals = found.rows
    sentences = [_sentence(student, rival) for rival in rivals if rival.ahead is not None]
    return [*sentences, *(f"Left out: {line}." for line in found.left_out)]


def how_to_read(found: Comparison) -> str:
    """Return the caption of the rivals' figure."""
    metric = metric_named(found.rows[0].metric, found.rows[0].greater_is_better)
    better = f"{metric.way_up} and to the left is better; a mark's area is the size on disk"
    text = f"{capitalized(metric.title)} against the latency of a whole call: {better}."
    if all(row.ahead is None for row in found.rows):
        return text
    return f"{text} The dashed lines are this student's: left of them is what is faster, above them what scores more."


def title_of(found: Comparison) -> str:
    """Return what the figure of the rivals shows."""
    return f"{capitalized(metric_named(found.rows[0].metric).title)} against the latency of a whole call"


def rows_in_words(found: Comparison) -> list[str]:
    """Tell the figure of the rivals to who can't see it: each row's value, latency and size."""
    metric = metric_named(found.rows[0].metric)
    return [
        f"{row.name}: {100 * row.value:.1f}{metric.unit if metric.unit == '%' else ''} at {row.latency_ms.p50:.3g} ms, "
        f"{row.size_bytes / 1e6:.1f} MB"
        for row in found.rows
    ]


def in_words(found: Comparison) -> str:
    """Return what the figure says as a text."""
    return spoken(title_of(found), rows_in_words(found))


def _sentence(student: RivalRow, rival: RivalRow) -> str:
    assert rival.ahead is not None  # noqa: S101 - only of such rows
    value, (low, high) = rival.ahead.value, rival.ahead.ci95
    latency = f"{student.latency_ms.p50 / rival.latency_ms.p50:.2g} times its latency"
    size = f"{student.size_bytes / rival.size_bytes:.2g} times its size"
    points = f"{abs(100 * value):.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
    if low > 0:
        return f"It beats {rival.name} by {points}, at {latency} and {size}."
    if high < 0:
        return f"It loses to {rival.name} by {points}, at {latency} and {size}."
    took = "" if rival.seconds is None else f", which took {_duration(rival.seconds)}"
    return (
        f"It is not told apart from {rival.name}{took} ({_with_interval(rival.ahead)} points), at {latency} and {size}."
    )


def rivals_text(found: Comparison) -> str:
    """Lay the table out for a terminal, with the verdict under it."""
    return "\n".join([text_table(rivals_table(found)), "", *verdict(found)])


def _with_interval(ahead: Ahead) -> str:
    low, high = ahead.ci95
    return f"{_points(ahead.value)} [{_points(low)}, {_points(high)}]"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
