"""Draw curves and bars with intervals, as SVG, in the style of the other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from edgemin_hf.report.figures import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, STYLE, VERMILION, WIDTH
from edgemin_hf.report.svg import to_svg

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, GREY, INK)
_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Curve:
    """One line of a figure.

    Attributes:
        name: What it shows; written at its end where there are several.
        x: Places, in any order.
        y: Values.
        error: Half the height of an interval around each value; None draws none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None


def draw_curves(curves: Sequence[Curve], x_label: str, y_label: str, title: str) -> str:
    """Draw one or several curves.

    Args:
        curves: The curves.
        x_label: What the places are.
        y_label: What the values are, with their unit.
        title: What the figure says, for those who hear it read.

    Returns:
        The figure as SVG.

    Raises:
        ValueError: If there are more than eight curves, which no eye could tell apart.
    """
    if len(curves) > len(_COLOURS):
        raise ValueError(f"curves: {len(curves)}; allowed: {len(_COLOURS)} or fewer")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4))
        names = max(len(curve.name) for curve in curves)
        width = 0.84 if len(curves) == 1 else 0.8 - 0.013 * names  # the rest is the legend's
        axes = figure.add_axes((0.12, 0.15, width, 0.8))
        for curve, colour, marker in zip(curves, _COLOURS, _MARKERS, strict=False):
            order = np.argsort(curve.x)
            x, y = np.array(curve.x)[order], np.array(curve.y)[order]
            error = None if curve.error is None else np.array(curve.error)[order]
            axes.errorbar(x, y, error, color=colour, marker=marker, capsize=2, label=curve.name, markersize=5)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        places = sorted({place for curve in curves for place in curve.x})
        if len(places) <= 12:
            axes.set_xticks(places, [f"{place:g}" for place in places])
        if len(curves) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))
        return to_svg(figure, title, [_in_words(curve, x_label, y_label) for curve in curves])


def _in_words(curve: Curve, x_label: str, y_label: str) -> str:
    """Return where a curve begins and ends, and its extremes."""
    (first, start), *_, (last, end) = sorted(zip(curve.x, curve.y, strict=True)) * 2
    told = f"{curve.name or y_label}: {start:.3g} at {first:g} ({x_label}), {end:.3g} at {last:g}"
    return f"{told}; least {min(curve.y):.3g}, most {max(curve.y):.3g}"


@dataclass(frozen=True)
class Bars:
    """One panel of bars.

    Attributes:
        name: Its heading.
        values: For each bar the values of its seeds: their mean is its length, each is marked.
    """

    name: str
    values: Mapping[str, Sequence[float]]


def draw_bars(panels: Sequence[Bars], x_label: str, title: str) -> str:
    """Draw panels of horizontal bars below each other; the axis begins near the least value, as it says.

    Args:
        panels: The panels.
        x_label: What the values are, with their unit.
        title: What the figure says, for those who hear it read.

    Returns:
        The figure as SVG.
    """
    everything = [value for panel in panels for values in panel.values.values() for value in values]
    low, high = min(everything), max(everything)
    margin = 0.1 * max(high - low, 1.0)
    rows = [len(panel.values) for panel in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.3 * sum(rows) + 0.45 * len(panels) + 0.6), layout="constrained")
        for axes, panel in zip(np.atleast_1d(figure.subplots(len(panels), height_ratios=rows)), panels, strict=True):
            for place, values in enumerate(panel.values.values()):
                mean = float(np.mean(values))
                axes.barh(place, mean - low + margin, left=low - margin, color=SKY, height=0.7)
                axes.plot(values, [place] * len(values), "o", color=BLUE, markersize=3)
                axes.annotate(f"{mean:.1f}", (max(values), place), (6, 0), textcoords="offset points", va="center")
            axes.set_yticks(range(len(panel.values)), list(panel.values))
            axes.invert_yaxis()
            axes.set_xlim(low - margin, high + 2 * margin)
            axes.set_title(panel.name, loc="left", fontsize=10)
        axes.set_xlabel(f"{x_label}; the axis does not start at zero")
        told = [
            f"{panel.name}: " + ", ".join(f"{name} {np.mean(values):.1f}" for name, values in panel.values.items())
            for panel in panels
        ]
        return to_svg(figure, title, told)
