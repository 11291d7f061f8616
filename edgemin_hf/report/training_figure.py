"""Draw how each stage's training went, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from edgemin_hf.report.figures import BLUE, STYLE, VERMILION, WIDTH
from edgemin_hf.report.records import StageRecord, TrainingCurve
from edgemin_hf.report.svg import to_svg
from edgemin_hf.tasks.metrics import metric_named

_ROW = 1.55
"""Height of a stage's panels in inches."""


def training_curves(stages: Sequence[StageRecord]) -> str | None:
    """Draw loss and validation metric over steps, a row of two panels a stage.

    Args:
        stages: What each stage did.

    Returns:
        The figure as SVG; None where no stage told.
    """
    told = [(stage.name or stage.stage, stage.curve) for stage in stages if stage.curve is not None]
    if not told:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, _ROW * len(told) + 0.4), layout="constrained")
        for number, (pair, (name, curve)) in enumerate(
            zip(figure.subplots(len(told), 2, squeeze=False), told, strict=True)
        ):
            last = max(*curve.steps, *curve.validated) if curve.steps else max(curve.validated)
            _draw(pair[0], curve.steps, curve.losses, BLUE, last)
            _draw(pair[1], curve.validated, [_scaled(curve, value) for value in curve.values], VERMILION, last)
            pair[0].set_title(f"{name}: training loss", loc="left", fontsize=9)
            pair[1].set_title(f"{name}: validation, {_title(curve)}", loc="left", fontsize=9)
            if number == len(told) - 1:
                for axes in pair:
                    axes.set_xlabel("step")
        return to_svg(figure, "Loss and validation metric by step", [_in_words(*one) for one in told])


def _draw(axes: Axes, steps: Sequence[int], values: Sequence[float], colour: str, last: int) -> None:
    axes.plot(steps, values, color=colour, marker="o", markersize=3 if len(steps) < 30 else 0, lw=1.4)
    axes.set_xlim(-0.03 * last, 1.03 * last)
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=8)
    axes.grid(True, axis="y")
    if not steps:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not logged", transform=axes.transAxes, ha="center", va="center", size=9)


def _scaled(curve: TrainingCurve, value: float) -> float:
    return value if curve.metric == "loss" else metric_named(curve.metric).scale * value


def _title(curve: TrainingCurve) -> str:
    return "loss" if curve.metric == "loss" else metric_named(curve.metric).axis


def _in_words(name: str, curve: TrainingCurve) -> str:
    """Return where a training's loss and metric began and ended."""
    first, last = (_scaled(curve, curve.values[end]) for end in (0, -1))
    metric = f"validation {_title(curve)} from {first:.3g} to {last:.3g} in {curve.validated[-1]:,} steps"
    if not curve.losses:
        return f"{name}: {metric}"
    return f"{name}: training loss from {curve.losses[0]:.3g} to {curve.losses[-1]:.3g}, {metric}"
