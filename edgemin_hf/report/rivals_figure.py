"""Draw a student among its rivals: what each is worth against the time of a whole call, marks as large as files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from edgemin_hf.report.figures import BLUE, CHARACTER, GREY, INK, STYLE, VERMILION, WIDTH, log_axis
from edgemin_hf.report.rivals import rows_in_words, title_of
from edgemin_hf.report.svg import to_svg
from edgemin_hf.rivals.compare import Comparison, RivalRow
from edgemin_hf.tasks.metrics import metric_named

_LARGEST, _SMALLEST = 13.0, 2.0
"""Radii of marks."""
_LINE = 14.0
"""Height of a label."""
_BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
"""What lies behind a label, where a line runs under it."""
_MEANINGS = {VERMILION: "this student", GREY: "worse than it", BLUE: "not told apart from it", INK: "better than it"}


def draw_rivals(found: Comparison) -> str:
    """Draw the metric against the latency of a whole call; the area of a mark is the size of its files.

    Args:
        found: What was measured. Its first row is the student's, if other rows tell its lead.

    Returns:
        The figure as SVG.
    """
    rows, metric = found.rows, metric_named(found.rows[0].metric)
    points = np.array([[row.latency_ms.p50, *(100 * value for value in (row.value, *row.ci95))] for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.4))
        axes = figure.add_axes((0.11, 0.17, 0.86, 0.81))
        log_axis(axes, points[:, 0])
        labels = [f"{row.name}, {row.size_bytes / 1e6:.0f} MB" for row in rows]
        downwards = sorted(range(len(rows)), key=lambda row: -rows[row].value)
        upper, lower = downwards[: (len(rows) + 1) // 2], downwards[(len(rows) + 1) // 2 :]
        _set_limits(axes, points, len(upper))
        axes.set_xlabel("whole call, text in and answer out, in ms at one thread (log scale)")
        axes.set_ylabel(f"{metric.axis}, with its 95% interval")
        axes.grid(True)
        if any(row.ahead is not None for row in rows):
            _draw_student(axes, points, [_colour(row) for row in rows])
        _draw_labels(axes, points, labels, upper, above=True)
        _draw_labels(axes, points, labels, lower, above=False)
        largest = max(row.size_bytes for row in rows)
        for row, point in zip(rows, points, strict=True):
            _draw_mark(axes, _colour(row), point, max(_LARGEST * (row.size_bytes / largest) ** 0.5, _SMALLEST))
        return to_svg(figure, title_of(found), rows_in_words(found))


def _set_limits(axes: Axes, points: NDArray[np.float64], upper: int) -> None:
    """Leave room for lines of labels above and below all intervals."""
    low, high = points[:, 2].min(), points[:, 3].max()
    above, below = (_LINE * (count + 1) for count in (upper, len(points) - upper))
    unit = max(high - low, 1.0) / (axes.bbox.height - above - below)
    axes.set_ylim(low - below * unit, high + above * unit)
    axes.set_yticks([tick for tick in axes.get_yticks() if low - unit * below <= tick <= min(100, high + above * unit)])


def _draw_student(axes: Axes, points: NDArray[np.float64], colours: Sequence[str]) -> None:
    """Draw lines through the student, left of which a rival is faster and above which it is worth more; a legend."""
    dashed = {"color": VERMILION, "lw": 0.8, "ls": (0, (4, 3)), "zorder": 0.5}
    axes.vlines(points[0, 0], points[:, 2].min(), points[:, 3].max(), **dashed)
    axes.axhline(points[0, 1], **dashed)
    meanings = {colour: meaning for colour, meaning in _MEANINGS.items() if colour in colours}
    marks = [Line2D([], [], color=colour, marker="o", ls="", label=meaning) for colour, meaning in meanings.items()]
    axes.legend(handles=marks, ncols=4, loc="lower left", bbox_to_anchor=(0.0, -0.2), handletextpad=0.3)


def _draw_mark(axes: Axes, colour: str, point: NDArray[np.float64], radius: float) -> None:
    x, y, low, high = point
    axes.errorbar(x, y, yerr=[[y - low], [high - y]], fmt="none", ecolor=colour, elinewidth=1, capsize=3)
    axes.plot(x, y, "o", ms=2 * radius, mfc=colour, mec="white", mew=0.8, alpha=0.85)


def _arranged(places: Sequence[float], widths: Sequence[float], start: float, end: float) -> list[tuple[float, int]]:
    """Return where labels begin, and on which line from the marks: so that few are crossed by what joins another."""
    ways = [
        [min(max(left, start), end - width) for left in (x - width / 2, x - 4, x + 4 - width)]
        for x, width in zip(places, widths, strict=True)
    ]
    best: list[tuple[float, int]] = []
    fewest = len(places) ** 2
    for lefts, lines in product(product(*ways), permutations(range(len(places)))):
        crossed = sum(
            left - 3 <= x <= left + width + 3 and further > line
            for left, width, line in zip(lefts, widths, lines, strict=True)
            for x, further in zip(places, lines, strict=True)
        )
        if crossed < fewest:
            best, fewest = list(zip(lefts, lines, strict=True)), crossed
        if not fewest:
            break
    return best


def _draw_labels(
    axes: Axes, points: NDArray[np.float64], labels: Sequence[str], rows: Sequence[int], above: bool
) -> None:
    """Write labels above or below all intervals, a line each, and join each to its own."""
    marks = [axes.transData.transform((points[row, 0], points[row, 3 if above else 2])) for row in rows]
    widths = [9 * CHARACTER * len(labels[row]) for row in rows]
    arranged = _arranged([float(x) for x, _ in marks], widths, axes.bbox.x0 + 2, axes.bbox.x1 - 2)
    end, step = (axes.bbox.y1, -_LINE) if above else (axes.bbox.y0, _LINE)
    for row, (x, y), width, (left, line) in zip(rows, marks, widths, arranged, strict=True):
        middle = end + step * (len(rows) - line - 0.5)
        text = {"size": 9, "ha": "center", "va": "center", "transform": None, "bbox": _BEHIND}
        axes.text(left + width / 2, middle, labels[row], weight="bold" if row == 0 else "normal", **text)
        axes.plot((x, x), (y, middle + step / 2), color=GREY, lw=0.6, transform=None, zorder=0.8)


def _colour(row: RivalRow) -> str:
    """Return the student's colour, or that of rivals that it beats, that it loses to, or that are as good."""
    if row.ahead is None:
        return VERMILION
    low, high = row.ahead.ci95
    return GREY if low > 0 else INK if high < 0 else BLUE
