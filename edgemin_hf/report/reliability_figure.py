"""Draw how far a classifier's probabilities are to be relied on, as SVG."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from edgemin_hf.report.figures import BLUE, GREY, STYLE, VERMILION, WIDTH
from edgemin_hf.report.svg import to_svg
from edgemin_hf.tasks.metrics.calibration import Calibration

_LOOKS = {"teacher": (BLUE, "o", "none"), "student": (VERMILION, "D", VERMILION)}
_HEIGHT = 4.2


def draw_reliability(found: Mapping[str, Calibration]) -> str:
    """Draw the share of labels that is right against the probability that they are given, a mark a bin.

    Args:
        found: The calibration of "teacher" and "student", or of the student alone.

    Returns:
        The figure as SVG.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, _HEIGHT))
        axes = figure.add_axes((0.2, 0.13, 0.82 * _HEIGHT / WIDTH, 0.84))
        least = min(min(part.confidence, part.accuracy) for one in found.values() for part in one.bins)
        low = max(100 * least // 10 * 10 - 10, 0)
        axes.plot((low, 100), (low, 100), color=GREY, lw=1, ls=(0, (4, 3)))
        for name, one in found.items():
            colour, marker, face = _LOOKS[name]
            x = [100 * part.confidence for part in one.bins]
            y = [100 * part.accuracy for part in one.bins]
            ends = np.array([_interval(part.accuracy, part.n) for part in one.bins]).T
            errors = np.maximum(np.abs(ends - y), 0)
            axes.errorbar(x, y, errors, color=colour, elinewidth=0.7, lw=1, marker=marker, mfc=face, ms=5, label=name)
        axes.set_xlim(low, 103)
        axes.set_ylim(low, 103)
        axes.set_aspect("equal")
        axes.set_xlabel("mean probability of the label given (%)")
        axes.set_ylabel("share that is right (%), with its 95% interval")
        axes.grid(True)
        axes.legend(loc="upper left", bbox_to_anchor=(0.02, 0.98))
        return to_svg(figure, "Reliability of the probabilities", [_in_words(*item) for item in found.items()])


def _interval(share: float, count: int) -> tuple[float, float]:
    """Return both ends of Wilson's 95% interval, in percent."""
    ends = binomtest(round(share * count), count).proportion_ci(0.95, method="wilson")
    return 100 * float(ends.low), 100 * float(ends.high)


def _in_words(name: str, found: Calibration) -> str:
    worst = max(found.bins, key=lambda part: abs(part.confidence - part.accuracy))
    return (
        f"{name}: {found.confidence:.1%} sure on average and {found.accuracy:.1%} right, expected calibration error "
        f"{100 * found.ece:.1f} points; it is farthest off where it is {worst.confidence:.1%} sure, and "
        f"{worst.accuracy:.1%} right"
    )
