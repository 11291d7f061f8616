"""Draw the benchmark's figures as SVG: readable in black and white, on a phone, and without a legend to look up."""

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor, log10

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from edgemin_hf.benchmark.rows import BenchmarkRow
from edgemin_hf.report.page import three_digits
from edgemin_hf.report.svg import to_svg
from edgemin_hf.tasks.metrics import metric_named

# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, SKY, GREEN, ORANGE, VERMILION, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
GREY, INK = "#999999", "#222222"
COMPONENT_COLOURS = (BLUE, SKY, ORANGE, GREEN, PURPLE, GREY)

STYLE = {
    "svg.fonttype": "none",  # Text stays text: it can be searched, read aloud and shown in the reader's own font.
    "text.parse_math": False,
    "font.size": 10,
    "figure.dpi": 72,  # One pixel of a transform is one unit of the SVG.
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.0,
    "legend.handleheight": 1.0,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.2,
}
WIDTH = 6.0  # inches, hence 432 units: ten-point text stays readable when a phone shrinks it to its screen
CHARACTER = 0.55  # Width of an average character in ems, on the wide side: the reader's font is unknown.


def size_against_metric(rows: Sequence[BenchmarkRow]) -> str:
    """Draw size on disk against the task's metric, with the 95% interval of each row that has one.

    Args:
        rows: Rows of the benchmark; those without a `value` are left out.

    Returns:
        The figure as SVG.

    Raises:
        ValueError: No row has a value.
    """
    rows = [row for row in rows if row.score is not None]
    scores = [row.score for row in rows if row.score is not None]
    if not scores:
        raise ValueError("no row of the benchmark has a value to draw")
    metric = metric_named(scores[0].metric)
    spans = [(score.value, *(score.ci95 or (score.value, score.value))) for score in scores]
    points = np.column_stack(([row.size_bytes / 1e6 for row in rows], 100 * np.array(spans)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0))
        axes = figure.add_axes((0.11, 0.13, 0.86, 0.85))
        log_axis(axes, points[:, 0])
        low, high = points[:, 1:].min(), points[:, 1:].max()
        margin = 0.25 * max(high - low, 1.0)
        axes.set_ylim(low - margin, high + margin)
        axes.set_yticks([tick for tick in axes.get_yticks() if low - margin <= tick <= max(100, high)])
        axes.set_xlabel("size on disk in MB (log scale)")
        axes.set_ylabel(f"{metric.axis}, with its 95% interval")
        axes.grid(True)
        for row, point in zip(rows, points, strict=True):
            _draw_point(axes, row, point)
        _label_points(axes, [row.label for row in rows], points)
        unit = "%" if metric.unit == "%" else ""
        told = [
            f"{row.label}: {megabytes:.1f} MB, {value:.1f}{unit}"
            for row, (megabytes, value, *_) in zip(rows, points, strict=True)
        ]
        return to_svg(figure, f"Size on disk against {metric.title}", told)


def latency_distributions(latencies: Mapping[str, Sequence[float]]) -> str:
    """Draw how the latencies of each row spread, fastest row first.

    Args:
        latencies: Milliseconds a call by label of the row.

    Returns:
        The figure as SVG.

    Raises:
        ValueError: There are no rows, or a row has no latencies.
    """
    if not latencies or not all(len(values) for values in latencies.values()):
        raise ValueError("every row needs at least one latency, and there must be a row")
    spreads = {label: np.percentile(values, (1, 25, 50, 75, 99)) for label, values in latencies.items()}
    spreads = dict(sorted(spreads.items(), key=lambda item: item[1][2]))
    with matplotlib.rc_context(STYLE):
        figure, axes = _row_figure(len(spreads), footer=0.75)
        log_axis(axes, [value for spread in spreads.values() for value in (spread[0], spread[-1])], room=0.17)
        axes.set_xlabel("milliseconds a call (log scale)")
        figure.text(
            0.5, 0.02, "box: middle half · number: median (p50) · whiskers: p1 to p99", ha="center", va="bottom"
        )
        for y, (label, spread) in enumerate(spreads.items()):
            _draw_spread(axes, y, spread, fastest=y == 0)
            _row_name(axes, y, label, bold=y == 0)
        told = [
            f"{label}: half of the calls within {three_digits(median)} ms, 99% within {three_digits(most)} ms"
            for label, (_, _, median, _, most) in spreads.items()
        ]
        return to_svg(figure, "Latency distributions", told)


def bytes_by_component(components: Mapping[str, Mapping[str, int]]) -> str:
    """Draw which components of the encoder take the bytes of each file.

    Args:
        components: Bytes by component, as of `edgemin_hf.export.graph.bytes_by_component`, by name of the file.

    Returns:
        The figure as SVG.

    Raises:
        ValueError: There are no files.
    """
    if not components:
        raise ValueError("there are no files to draw")
    names = list(dict.fromkeys(name for sizes in components.values() for name in sizes))
    colours = {name: COMPONENT_COLOURS[i % len(COMPONENT_COLOURS)] for i, name in enumerate(names)}
    totals = {label: sum(sizes.values()) / 1e6 for label, sizes in components.items()}
    with matplotlib.rc_context(STYLE):
        figure, axes = _row_figure(len(components), footer=0.95)
        axes.set_xlim(0, 1.17 * max(totals.values()))
        axes.set_xlabel("size in MB")
        named: set[str] = set()
        for y, (label, sizes) in enumerate(components.items()):
            _draw_bar(axes, y, sizes, colours, named)
            _row_name(axes, y, label)
            _number(axes, totals[label], y, f"{totals[label]:.1f} MB")
        rest = [Patch(color=colours[name], label=name) for name in names if name not in named]
        if rest:
            place = {"bbox_to_anchor": (0.03, 0), "bbox_transform": figure.transFigure}
            axes.legend(handles=rest, ncols=3, loc="lower left", **place)
        told = [
            f"{label}: {totals[label]:.1f} MB, of which "
            + ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
            for label, sizes in components.items()
        ]
        return to_svg(figure, "Bytes by component", told)


def _draw_point(axes: Axes, row: BenchmarkRow, point: NDArray[np.float64]) -> None:
    x, y, low, high = point
    colour = BLUE if row.model == "teacher" else VERMILION
    axes.errorbar(x, y, yerr=[[y - low], [high - y]], fmt="none", ecolor=colour, elinewidth=1, capsize=3)
    # PyTorch is a ring, so that the same weights in ONNX Runtime show as a dot inside it.
    face, size = ("none", 10) if row.runtime == "pytorch" else (colour, 6)
    axes.plot(x, y, "o" if row.precision == "fp32" else "D", ms=size, mec=colour, mfc=face, mew=1.5)


def _label_points(axes: Axes, labels: Sequence[str], points: NDArray[np.float64]) -> None:
    """Write each label where it is nearest to its point and covers nothing; points that coincide share a label."""
    marks = [[axes.transData.transform((x, value)) for value in values] for x, *values in points]
    taken = [Bbox([point - 6, point + 6]) for point, _, _ in marks]
    taken += [Bbox.from_extents(x - 3, low, x + 3, high) for _, (x, low), (_, high) in marks]
    groups: list[tuple[list[NDArray[np.float64]], list[str]]] = []
    for mark, label in zip(marks, labels, strict=True):
        lines = next((lines for other, lines in groups if np.hypot(*(mark[0] - other[0])) < 8), None)
        if lines is None:
            groups.append((mark, [label]))
        else:
            lines.append(label)
    for mark, lines in groups:
        size = np.array([max(map(len, lines)) * 9 * CHARACTER, len(lines) * 9 * 1.4])
        places = list(_places(mark, size, axes.bbox))
        box, line = next((place for place in places if not any(b.count_overlaps(taken) for b in place)), places[-1])
        taken += [box, line]
        for index, line_text in enumerate(lines):
            middle = box.y1 - (index + 0.5) * box.height / len(lines)
            axes.text((box.x0 + box.x1) / 2, middle, line_text, size=9, ha="center", va="center", transform=None)
        axes.plot((mark[0][0],) * 2, line.intervaly, color=GREY, lw=0.6, transform=None)


def _places(mark: Sequence[NDArray[np.float64]], size: NDArray[np.float64], frame: Bbox) -> Iterator[tuple[Bbox, Bbox]]:
    """Give boxes for a label, nearest to its mark first, each with the box of the line that joins the two."""
    (x, y), (_, low), (_, high) = mark
    width, height = size
    for left in (x + 9, x - 9 - width):
        if frame.x0 < left and left + width < frame.x1:
            yield Bbox.from_bounds(left, y - height / 2, width, height), Bbox.from_bounds(x, y, 0, 0)
    for reach in range(3, int(frame.height), 6):
        for left in (x - width / 2, x - 2, x + 2 - width):
            left = min(max(left, frame.x0 + 3), frame.x1 - 3 - width)
            if high + reach + height < frame.y1:
                above = Bbox.from_bounds(left, high + reach, width, height)
                yield above, Bbox.from_extents(x - 1, high + 1, x + 1, above.y0)
            if low - reach - height > frame.y0:
                below = Bbox.from_bounds(left, low - reach - height, width, height)
                yield below, Bbox.from_extents(x - 1, below.y1, x + 1, low - 1)
    # Where nothing is free, rather on top of its mark than nowhere.
    left = min(max(x - width / 2, frame.x0 + 3), frame.x1 - 3 - width)
    yield Bbox.from_bounds(left, y - height / 2, width, height), Bbox.from_bounds(x, y, 0, 0)


def _row_figure(rows: int, footer: float) -> tuple[Figure, Axes]:
    """Make a figure of horizontal rows, each 0.55 inches high, over a footer in inches."""
    height = 0.55 * rows + footer + 0.1
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0.03, footer / height, 0.93, 0.55 * rows / height))
    axes.set_ylim(rows - 0.6, -0.6)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    return figure, axes


def _row_name(axes: Axes, y: float, name: str, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    axes.text(0, y - 0.4, name, transform=axes.get_yaxis_transform(), va="center", weight=weight)


def _number(axes: Axes, x: float, y: float, text: str, bold: bool = False) -> None:
    """Write a number to the right of a mark that ends at x."""
    weight = "bold" if bold else "normal"
    axes.annotate(text, (x, y), xytext=(6, 0), textcoords="offset points", va="center", weight=weight)


def _draw_spread(axes: Axes, y: float, spread: NDArray[np.float64], fastest: bool) -> None:
    low, first, median, third, high = spread
    colour = GREEN if fastest else SKY
    axes.plot((low, high), (y, y), color=colour, lw=1.5, solid_capstyle="butt")
    axes.barh(y, third - first, left=first, height=0.32, color=colour)
    axes.plot((median, median), (y - 0.22, y + 0.22), color=INK, lw=2)
    _number(axes, high, y, f"{three_digits(median)} ms", bold=fastest)


def _draw_bar(axes: Axes, y: float, sizes: Mapping[str, int], colours: Mapping[str, str], named: set[str]) -> None:
    """Stack a row's components and write into each what fits: its name if not yet `named`, and its MB."""
    left = 0.0
    unit = axes.transData.transform((1, 0))[0] - axes.transData.transform((0, 0))[0]
    for name, size in sizes.items():
        width = size / 1e6
        axes.barh(y, width, left=left, height=0.32, color=colours[name], edgecolor="white", linewidth=0.5)
        number = f"{width:.1f}"
        for text in (f"{name} {number}", number) if name in named else (f"{name} {number}", name, number):
            if 9 * CHARACTER * len(text) + 4 < width * unit:
                ink = "white" if colours[name] == BLUE else INK
                axes.text(left + width / 2, y, text, size=9, ha="center", va="center", color=ink)
                if name in text:
                    named.add(name)
                break
        left += width


def log_axis(axes: Axes, values: Sequence[float] | NDArray[np.float64], room: float = 0.0) -> None:
    """Give the x axis a log scale with plain numbers at 1, 2 and 5, some of them around all values.

    Args:
        axes: The axes, in whose figure nothing is drawn yet.
        values: What the axis must hold, all positive.
        room: Share of the axis to keep free to the right of the values.
    """
    axes.set_xscale("log")
    least, most = 0.93 * min(values), 1.07 * max(values)
    steps = [step * 10.0**decade for decade in range(floor(log10(least)), ceil(log10(most)) + 1) for step in (1, 2, 5)]
    low, high = max(step for step in steps if step <= least), min(step for step in steps if step >= most)
    high = max(high, low * (most / low) ** (1 / (1 - room)))
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) > 10:
        ticks = [tick for tick in ticks if f"{tick:e}".startswith("1")]
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
