"""Writing figures as SVG that can stand in a page, or alone, and that tell what they show to who can't see it."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from edgemin_hf.report.words import spoken


def to_svg(figure: Figure, title: str, told: Sequence[str]) -> str:
    """Write a figure so that it can stand in a page with others: no document header, no ids or styles that leak.

    Args:
        figure: The figure.
        title: What it shows.
        told: What it says to who can't see it, a part each without a full stop.

    Returns:
        The SVG, whose label, title and description say it in words.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'font-family: [^;"]*; ', "", svg)
    style = "stroke-linejoin: round; stroke-linecap: butt; font-family: system-ui, sans-serif"
    named, words = html.escape(title), html.escape(spoken(title, told))
    head, end, body = svg.partition(">")
    head = head.replace("<svg ", f'<svg role="img" aria-label="{words}" style="{style}" ', 1)
    return f"{head}{end}<title>{named}</title><desc>{words}</desc>{body}"
