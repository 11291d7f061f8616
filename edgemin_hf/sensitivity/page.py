"""Tell where a model can be cut or quantised: one self-contained HTML page, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from edgemin_hf.hub.privacy import publishable
from edgemin_hf.report.page import DASH, environment_text, page_template
from edgemin_hf.report.tables import Table
from edgemin_hf.sensitivity.figures import TITLES, points
from edgemin_hf.sensitivity.quantization_figure import LOSSES, loss_title, losses_by_module
from edgemin_hf.sensitivity.records import SensitivityRecord
from edgemin_hf.tasks.metrics import metric_named

_SETTINGS = {"heads": "head_sparsity", "neurons": "ffn_sparsity", "layers": "layer_sparsity"}
"""The setting of a recipe's stage `prune` that removes units of each kind."""


class Ranking(NamedTuple):
    """The layers of one kind.

    Attributes:
        kind: The kind.
        changes: For each layer the mean change of the metric over its sparsities, least loss first.
    """

    kind: str
    changes: dict[int, float]


def rankings(result: SensitivityRecord) -> list[Ranking]:
    """Rank the layers of each kind by the mean change of the metric over the sparsities.

    Args:
        result: What was measured.

    Returns:
        One ranking a kind.
    """
    changes: dict[str, dict[int, list[float]]] = {}
    for row in result.measurements:
        if row.layer is not None:
            changes.setdefault(row.kind, {}).setdefault(row.layer, []).append(row.change)
    found = []
    for kind, layers in changes.items():
        means = {layer: sum(values) / len(values) for layer, values in layers.items()}
        found.append(Ranking(kind, dict(sorted(means.items(), key=lambda item: -item[1]))))
    return found


def base_line(result: SensitivityRecord) -> str:
    """Say what the model as it is reaches, on how many rows."""
    base = result.base
    metric = metric_named(base.metric)
    interval = "" if base.ci95 is None else f" [{100 * base.ci95[0]:.1f}, {100 * base.ci95[1]:.1f}]"
    return f"The model as it is: {metric.axis} {100 * base.value:.1f}{interval}, on {base.n:,} rows"


def summary(result: SensitivityRecord) -> str:
    """Lay out for the terminal what the model as it is reaches, and each kind's least and most sensitive layer."""
    lines = [base_line(result)]
    width = max((len(TITLES[ranking.kind]) for ranking in rankings(result)), default=0)
    for kind, changes in rankings(result):
        least, most = next(iter(changes)), list(changes)[-1]
        lines.append(
            f"{TITLES[kind]:{width}}  least sensitive: layer {least} ({points(changes[least])} points), "
            f"most: layer {most} ({points(changes[most])})"
        )
    if rankings(result):
        lines.append("Points: change of 100 times the metric, mean over the sparsities.")
    for precision in ("int8", "int4") if result.quantization else ():
        rows = [row for row in result.quantization if row.precision == precision]
        first, last = (f"{row.name} ({row.loss:.1e})" for row in (rows[0], rows[-1]))
        lines.append(f"{precision.upper()}  most sensitive: {first}, least: {last}, all together about "
                     f"{sum(row.loss for row in rows):.1e}")  # fmt: skip
    if result.quantization:
        lines.append(f"In brackets: {loss_title(result)} from the unquantised model's, that module alone quantised.")
    return "\n".join(lines)


def render_page(
    model: str, result: SensitivityRecord, heat_map: str | None, curves: str | None, bars: str | None
) -> str:
    """Render the page, without scripts or anything to load.

    Args:
        model: The model's name, for the heading.
        result: What was measured.
        heat_map: SVG of the heat map; None where no cuts were measured. Pictures go into the page as they are: pass
            those drawn here only.
        curves: SVG of the curves, likewise.
        bars: SVG of the modules' losses; None where these were not measured.

    Returns:
        The page.
    """
    found = [word for word, picture in (("cut", heat_map), ("quantised", bars)) if picture is not None]
    shown = publishable({**result.settings, "": model}, Path.cwd())
    model = str(shown.pop(""))
    return page_template("sensitivity.html").render(
        title=f"Where {model} can be {' and '.join(found)}",
        headline=f"{base_line(result)}.",
        advice=[_advice(ranking) for ranking in rankings(result)],
        shared=result.shared_layers,
        heat_map=Markup(heat_map or ""),  # noqa: S704
        curves=Markup(curves or ""),  # noqa: S704
        bars=Markup(bars or ""),  # noqa: S704
        modules=module_table(result) if bars is not None else None,
        loss_title=loss_title(result) if bars is not None else "",
        divergence=result.quantization_loss == next(iter(LOSSES)),
        text_columns={"module"},
        layers_left_out=any(ranking.kind == "layers" for ranking in rankings(result)),
        facts={
            name.replace("_", " "): environment_text(" ".join(map(str, value)) if isinstance(value, list) else value)
            for name, value in {**shown, **result.environment.to_dict()}.items()
            if value is not None
        },
    )


def module_table(result: SensitivityRecord) -> Table:
    """Format what quantising each module costs and saves, the most sensitive module first."""
    found = {(row.name, row.precision): row for row in result.quantization}
    table = []
    for name in losses_by_module(result):
        rows = [found.get((name, precision)) for precision in ("int8", "int4")]
        full = next(row.size_bytes + row.saved_bytes["fp32"] for row in rows if row)
        pairs = [(f"{row.loss:.1e}", points(row.change)) if row else (DASH, DASH) for row in rows]
        sizes = [f"{row.size_bytes / 1e6:.4f}" if row else DASH for row in rows]
        table.append([name, *pairs[0], *pairs[1], f"{full / 1e6:.4f}", *sizes])
    headers = [f"{precision} {what}" for precision in ("INT8", "INT4") for what in ("loss", "points")]
    return Table(["module", *headers, "fp32 MB", "INT8 MB", "INT4 MB"], table)


def _advice(ranking: Ranking) -> dict[str, str]:
    layers = list(ranking.changes)
    half = max(1, len(layers) // 2)

    def told(numbers: Sequence[int]) -> str:
        return ", ".join(f"{number} ({points(ranking.changes[number])})" for number in numbers)

    return {
        "kind": TITLES[ranking.kind],
        "setting": _SETTINGS[ranking.kind],
        "least": told(layers[:half]),
        "most": told(layers[half:][::-1]),
    }
