"""Draw what quantising each module alone costs, as SVG: a row a module, a bar a precision."""

from __future__ import annotations

import re
from math import ceil, floor, log10

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from edgemin_hf.report.figures import BLUE, GREY, ORANGE, STYLE, WIDTH
from edgemin_hf.report.svg import to_svg
from edgemin_hf.sensitivity.records import SensitivityRecord

LOSSES = {"kl_divergence": "KL divergence of the predictions", "squared_difference": "squared difference of the scores"}
"""What the loss is called, by its name in a `sensitivity.json`."""

COLOURS = {"int8": BLUE, "int4": ORANGE}
_ROW, _BAR = 0.24, 0.36  # height of a row in inches, of a bar in rows
_PLOT = 3.4  # least width of the bars' part in inches
_CHARACTER = 0.55 * 9 / 72  # width of an average character of the names in inches
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw_modules(result: SensitivityRecord) -> str:
    """Draw the loss of each module at each precision on a log axis, the most sensitive module first.

    Args:
        result: What was measured; its `quantization` is not empty.

    Returns:
        The figure as SVG.
    """
    losses = losses_by_module(result)
    positive = [loss for of in losses.values() for loss in of.values() if loss > 0] or [1.0]
    low, high = floor(log10(0.8 * min(positive))), ceil(log10(1.2 * max(positive)))
    margin = _CHARACTER * max(len(short_name(name)) for name in losses) + 0.15
    width, height = max(WIDTH, margin + _PLOT + 0.2), _ROW * len(losses) + 1.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        place = (margin / width, 0.6 / height, 1 - (margin + 0.2) / width, _ROW * len(losses) / height)
        axes = figure.add_axes(place)
        axes.set_xscale("log")
        axes.set_xlim(10.0**low, 10.0**high)
        axes.set_ylim(len(losses) - 0.5, -0.5)
        for y, (name, of) in enumerate(losses.items()):
            if y % 2:
                axes.axhspan(y - 0.5, y + 0.5, color="#F4F4F2", lw=0, zorder=0)
            for offset, precision in ((-0.5, "int8"), (0.5, "int4")):
                if of.get(precision, 0) > 0:
                    length = of[precision] - 10.0**low
                    axes.barh(y + offset * _BAR, length, _BAR, left=10.0**low, color=COLOURS[precision])
            axes.text(-0.02, y, short_name(name), ha="right", va="center", size=9, transform=axes.get_yaxis_transform())
        _decades(axes, low, high)
        axes.set_xlabel(f"{loss_title(result)} (log scale)")
        _legend(figure, axes, margin / width, 1 - 0.12 / height)
        told = [
            f"{short_name(name)}: " + ", ".join(f"{loss:.2g} at {precision}" for precision, loss in of.items())
            for name, of in losses.items()
        ]
        return to_svg(figure, f"What quantising each module alone costs, {loss_title(result)}", told)


def losses_by_module(result: SensitivityRecord) -> dict[str, dict[str, float]]:
    """Return the losses by module and precision, the module with the largest first."""
    losses: dict[str, dict[str, float]] = {}
    for row in result.quantization:
        losses.setdefault(row.name, {})[row.precision] = row.loss
    return losses


def loss_title(result: SensitivityRecord) -> str:
    """Name the loss of a result."""
    return LOSSES[result.quantization_loss]


def short_name(name: str) -> str:
    """Leave out of a module's name what stands before the embeddings or the layers."""
    return re.sub(r"^.*?\.(?=embeddings\.|\w*layer\w*\.\d)", "", name)


def _decades(axes: Axes, low: int, high: int) -> None:
    step = ceil((high - low) / 7)
    exponents = range(low, high + 1, step)
    names = [f"10{str(exponent).translate(_SUPERSCRIPTS)}" for exponent in exponents]
    axes.set_xticks([10.0**exponent for exponent in exponents], names)
    axes.minorticks_off()
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x", color=GREY, alpha=0.35)


def _legend(figure: Figure, axes: Axes, x: float, y: float) -> None:
    handles = [Patch(color=colour, label=precision.upper()) for precision, colour in COLOURS.items()]
    axes.legend(handles=handles, ncols=2, loc="upper left", bbox_to_anchor=(x, y), bbox_transform=figure.transFigure)
