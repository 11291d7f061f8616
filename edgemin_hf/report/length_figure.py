"""Draw the latency of a whole call by the length of its text, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from edgemin_hf.benchmark.rows import LengthLatency
from edgemin_hf.report.figures import BLUE, SKY, STYLE, WIDTH
from edgemin_hf.report.page import three_digits
from edgemin_hf.report.svg import to_svg


def latency_by_length(found: Sequence[LengthLatency]) -> str:
    """Draw how long a call takes by the tokens of its text: within p50 returns half of the calls, within p95 95%.

    Args:
        found: The latencies.

    Returns:
        The figure as SVG.
    """
    tokens, half, most = ([getattr(one, name) for one in found] for name in ("tokens", "p50", "p95"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2))
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.8))
        axes.set_xscale("log", base=2)
        axes.fill_between(tokens, half, most, color=SKY, alpha=0.35, lw=0)
        axes.plot(tokens, most, color=SKY, lw=1.2, marker="v", ms=5, label="p95")
        axes.plot(tokens, half, color=BLUE, lw=2, marker="o", ms=5, label="p50, with its number")
        for one in found:
            place = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
            axes.annotate(three_digits(one.p50), (one.tokens, one.p50), **place, size=9)
        axes.set_xticks(tokens, [f"{length:,}" for length in tokens])
        axes.minorticks_off()
        axes.set_xlim(tokens[0] / 1.2, tokens[-1] * 1.2)
        axes.set_ylim(-0.14 * max(most), 1.08 * max(most))
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1.08 * max(most)])
        axes.set_xlabel("tokens of the text (log scale)")
        axes.set_ylabel("milliseconds a call")
        axes.grid(True, axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(0.02, 0.98))
        told = [f"{one.tokens} tokens: p50 {three_digits(one.p50)} ms, p95 {three_digits(one.p95)} ms" for one in found]
        return to_svg(figure, "Latency of a whole call by the length of its text", told)
