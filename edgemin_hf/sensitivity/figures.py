"""Draw what each layer's units are worth, as SVG: a heat map with its numbers in it, and curves."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from edgemin_hf.report.figures import BLUE, GREY, INK, STYLE, VERMILION, WIDTH
from edgemin_hf.report.svg import to_svg
from edgemin_hf.sensitivity.records import CutRow, SensitivityRecord
from edgemin_hf.tasks.metrics import metric_named

TITLES = {"heads": "heads", "neurons": "feed-forward neurons", "layers": "layer"}
"""What stands over the panel of each kind of measurement."""

_ROW, _COLUMN, _GAP = 0.25, 0.42, 0.5  # height and least width of a cell in inches; between panels in cells
_LEAST_SCALE = 0.05
"""A change of the metric below which no cell is drawn in full colour, lest noise look like a loss."""


def draw_heat_map(result: SensitivityRecord) -> str:
    """Draw the change of the metric in points: a row a layer, a column a sparsity, a panel a kind.

    Losses are vermilion, gains blue, which colour-blind readers tell apart, darker by the root of the change, so that
    small losses show beside large ones.

    Args:
        result: What was measured.

    Returns:
        The figure as SVG.
    """
    found = _by_kind(result)
    columns = {kind: sorted({row.sparsity for row in rows}) for kind, rows in found.items()}
    layers = max(row.layer or 0 for rows in found.values() for row in rows)
    scale = max(_LEAST_SCALE, *(abs(row.change) for rows in found.values() for row in rows))
    cells = sum(map(len, columns.values())) + _GAP * (len(columns) - 1)
    width, height = max(WIDTH, 0.8 + _COLUMN * cells), _ROW * (layers + 1.4) + 0.7
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.7 / width, 0.05 / height, 1 - 0.8 / width, 1 - 0.1 / height))
        axes.set_axis_off()
        axes.set_xlim(0, max(cells, 7.0))
        axes.set_ylim(layers + 1.4, -0.6 / _ROW)
        _names_of_rows(axes, layers)
        left = 0.0
        for kind, shares in columns.items():
            middle = left + len(shares) / 2
            lines = TITLES[kind].split() if len(shares) < 4 else [TITLES[kind]]
            for number, line in enumerate(reversed(lines)):
                head = number * 0.65 + (0.95 if kind != "layers" else 0.3)
                axes.text(middle, -head, line, ha="center", va="bottom", weight="bold")
            for column, share in enumerate(shares):
                if kind != "layers":
                    axes.text(left + column + 0.5, -0.25, f"{share:.0%}", ha="center", va="bottom", size=9)
            for row in found[kind]:
                y = layers + 0.4 if row.layer is None else row.layer - 1
                _draw_cell(axes, left + shares.index(row.sparsity), y, row.change, scale)
            left += len(shares) + _GAP
        title = f"Change of {metric_named(result.base.metric).title} in points by layer and sparsity"
        return to_svg(figure, title, [_in_words(kind, rows) for kind, rows in found.items()])


def draw_sensitivity_curves(result: SensitivityRecord) -> str:
    """Draw the metric against sparsity, a line a layer and one of all at once; then without each layer.

    The upright axis grows by the root of the distance from the unpruned model: small losses show beside large ones.

    Args:
        result: What was measured.

    Returns:
        The figure as SVG.
    """
    found = _by_kind(result)
    lines = [kind for kind in found if kind != "layers"]
    layers = max(row.layer or 0 for rows in found.values() for row in rows)
    metric = metric_named(result.base.metric)
    base = 100 * result.base.value
    heights = [_height(100 * row.value, base) for rows in found.values() for row in rows]
    low, high = min(-0.7, *heights), max(0.7, *heights)
    ticks = _ticks(base, low, high)
    legend, lower = 0.2 * ceil((layers + 2) / 5) + 0.1, 2.1 if "layers" in found else 0.0
    height = 2.9 + legend + lower
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        panels = []
        for number, kind in enumerate(lines):
            wide = 0.87 / len(lines)
            place = (0.11 + number * wide, (lower + legend + 0.55) / height, wide - 0.03, 2.05 / height)
            panels.append(figure.add_axes(place))
            _draw_lines(panels[-1], found[kind], layers, base)
            panels[-1].set_title(TITLES[kind], size=10, weight="bold")
        panels[0].set_ylabel(metric.axis)
        entries = panels[0].get_legend_handles_labels()
        panels[0].legend(
            *entries, ncols=5, loc="lower left", bbox_to_anchor=(0.09, lower / height),
            bbox_transform=figure.transFigure, columnspacing=1.2,
        )  # fmt: skip
        if lower:
            panels.append(figure.add_axes((0.11, 0.5 / height, 0.84, 1.35 / height)))
            _draw_without(panels[-1], found["layers"], base)
            panels[-1].set_ylabel(fill(metric.axis, 16))
        for axes in panels:
            axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))
            names = [""] * len(ticks) if axes in panels[1 : len(lines)] else [f"{tick:.3g}" for tick in ticks]
            axes.set_yticks([_height(tick, base) for tick in ticks], names)
            axes.grid(True, axis="y")
        title = f"{metric.title} against sparsity, layer by layer"
        return to_svg(figure, title, [_in_words(kind, rows) for kind, rows in found.items()])


def _in_words(kind: str, rows: Sequence[CutRow]) -> str:
    """Return how the metric changes by each cut of a kind, in points."""
    cuts = [
        f"{'all layers' if row.layer is None else f'layer {row.layer}'} at {row.sparsity:.0%} {100 * row.change:+.1f}"
        for row in rows
    ]
    return f"{TITLES[kind]}: {', '.join(cuts)}"


def _by_kind(result: SensitivityRecord) -> dict[str, list[CutRow]]:
    found: dict[str, list[CutRow]] = {}
    for row in result.measurements:
        found.setdefault(row.kind, []).append(row)
    return found


def _height(value: float, base: float) -> float:
    """Return the root of the distance between a value and the unpruned model's, with its sign."""
    return float(np.copysign(np.sqrt(abs(value - base)), value - base))


def _ticks(base: float, low: float, high: float) -> list[float]:
    """Return the unpruned model's value and, to both sides of it, round values that are far enough apart."""
    ticks = [base]
    for side in (-1, 1):
        last = 0.0
        for distance in (0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100):
            step = 0.1 if distance < 1 else 1 if distance < 5 else 5 if distance < 20 else 10
            tick = side * step * ceil(side * (base + side * distance) / step - 1e-9)
            height = _height(tick, base)
            if abs(height - last) > 0.11 * (high - low) and low <= height <= high:
                ticks.append(tick)
                last = height
    return ticks


def points(change: float) -> str:
    """Write a change of a metric in points, with its sign."""
    text = f"{100 * change:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def _names_of_rows(axes: Axes, layers: int) -> None:
    names = [f"layer {number + 1}" for number in range(layers)]
    for y, name in [*enumerate(names), (layers + 0.4, "all")]:
        axes.text(-0.12, y + 0.5, name, ha="right", va="center")


def _draw_cell(axes: Axes, x: float, y: float, change: float, scale: float) -> None:
    share = np.sqrt(abs(change) / scale)
    full = np.array(to_rgb(BLUE if change > 0 else VERMILION))
    colour = share * full + (1 - share) * np.ones(3)
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    ink = INK if _luminance(colour) > 0.2 else "white"
    axes.text(x + 0.5, y + 0.5, points(change), ha="center", va="center", size=9, color=ink)


def _luminance(colour: NDArray[np.float64]) -> float:
    """Compute the relative luminance of an sRGB colour, 0 to 1 (WCAG 2.2)."""
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _draw_lines(axes: Axes, rows: Sequence[CutRow], layers: int, base: float) -> None:
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, layers))
    ticks = sorted({0.0, *(100 * row.sparsity for row in rows)})
    for layer in [*range(1, layers + 1), None]:
        chosen = sorted((row.sparsity, row.value) for row in rows if row.layer == layer)
        x, y = ([100 * pair[part] for pair in chosen] for part in (0, 1))
        heights = [0, *(_height(value, base) for value in y)]
        if layer is None:
            axes.plot([0, *x], heights, color=INK, lw=2.2, ls="--", label="all at once")
        else:
            axes.plot([0, *x], heights, color=colours[layer - 1], lw=1.3, ms=3, marker="o", label=f"layer {layer}")
    axes.axhline(0, color=GREY, lw=1, ls=":", label="unpruned model")
    axes.set_xlabel("share masked in %")
    if len(ticks) <= 7:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])


def _draw_without(axes: Axes, rows: Sequence[CutRow], base: float) -> None:
    axes.axhline(0, color=GREY, lw=1, ls=":")
    for row in rows:
        x, y = row.layer, _height(100 * row.value, base)
        axes.plot((x, x), (0, y), color=BLUE if y > 0 else VERMILION, lw=1.5)
        axes.plot(x, y, "o", color=BLUE if y > 0 else VERMILION, ms=6)
    axes.set_xticks([row.layer for row in rows])
    axes.set_xlim(0.5, len(rows) + 0.5)
    axes.set_xlabel("layer that is left out")
