"""Tell where a model can be cut: one self-contained HTML page, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from edgemin_hf.benchmark.report import environment_text, page_template
from edgemin_hf.benchmark.sensitivity_figures import TITLES, points
from edgemin_hf.metrics import METRICS

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


def rankings(result: Mapping[str, Any]) -> list[Ranking]:
    """Ranks the layers of each kind by the mean change of the metric over the sparsities.

    Args:
        result: The contents of a `sensitivity.json`.

    Returns:
        One ranking a kind.
    """
    changes: dict[str, dict[int, list[float]]] = {}
    for row in result["measurements"]:
        if row["layer"] is not None:
            changes.setdefault(row["kind"], {}).setdefault(row["layer"], []).append(row["change"])
    found = []
    for kind, layers in changes.items():
        means = {layer: sum(values) / len(values) for layer, values in layers.items()}
        found.append(Ranking(kind, dict(sorted(means.items(), key=lambda item: -item[1]))))
    return found


def base_line(result: Mapping[str, Any]) -> str:
    """Says what the whole model reaches, on how many rows."""
    base = result["base"]
    metric, (low, high) = METRICS[base["metric"]], (100 * end for end in base["ci95"])
    name = f"{metric.title} {'in %' if metric.unit == '%' else metric.unit}"
    return f"The whole model: {name} {100 * base['value']:.1f} [{low:.1f}, {high:.1f}], on {base['n']:,} rows"


def summary(result: Mapping[str, Any]) -> str:
    """Lays out for the terminal what the whole model reaches, and each kind's least and most sensitive layer."""
    lines = [base_line(result)]
    width = max(len(TITLES[ranking.kind]) for ranking in rankings(result))
    for kind, changes in rankings(result):
        least, most = next(iter(changes)), list(changes)[-1]
        lines.append(
            f"{TITLES[kind]:{width}}  least sensitive: layer {least} ({points(changes[least])} points), "
            f"most: layer {most} ({points(changes[most])})"
        )
    return "\n".join([*lines, "Points: change of 100 times the metric, mean over the sparsities."])


def render_page(title: str, result: Mapping[str, Any], heat_map: str, curves: str) -> str:
    """Renders the page, without scripts or anything to load.

    Args:
        title: Heading of the page.
        result: The contents of a `sensitivity.json`.
        heat_map: SVG of the heat map. Pictures go into the page as they are: pass those drawn here only.
        curves: SVG of the curves.

    Returns:
        The page.
    """
    return page_template("sensitivity.html").render(
        title=title,
        headline=f"{base_line(result)}.",
        advice=[_advice(ranking) for ranking in rankings(result)],
        shared=result["shared_layers"],
        heat_map=Markup(heat_map),  # noqa: S704
        curves=Markup(curves),  # noqa: S704
        whole_layers=any(ranking.kind == "layers" for ranking in rankings(result)),
        facts={
            name.replace("_", " "): environment_text(" ".join(map(str, value)) if isinstance(value, list) else value)
            for name, value in {**result["settings"], **result["environment"]}.items()
            if value is not None
        },
    )


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
