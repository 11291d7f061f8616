"""Telling what the deployed model is worth beyond one number: further metrics, and each class on its own."""

from __future__ import annotations

from typing import NamedTuple

from edgemin_hf.report.tables import Table
from edgemin_hf.tasks.metrics import Measurement, metric_named

_SHOWN = 10
"""Classes that are shown unfolded, the worst."""


class ClassTables(NamedTuple):
    """The classes with the lowest F1, and all of them where they are more than are shown at once."""

    worst: Table
    every: Table | None


def class_tables(found: Measurement) -> ClassTables | None:
    """Lay out what each class is worth, the worst first; None where there are no classes."""
    listed = sorted(found.get("per_class", []), key=lambda row: (row["f1"], -row["support"], row["name"]))
    if not listed:
        return None
    headers = ["label", "precision %", "recall %", "F1 %", "support"]
    rows = [
        [
            row["name"],
            *(f"{100 * value:.1f}" for value in (row["precision"], row["recall"], row["f1"])),
            f"{row['support']:,}",
        ]
        for row in listed
    ]
    return ClassTables(Table(headers, rows[:_SHOWN]), Table(headers, rows) if len(rows) > _SHOWN else None)


def further_metrics(found: Measurement) -> Table | None:
    """Lay out the task's further metrics, those on further test sets too; None where there are none."""
    told = [("", other) for other in found.get("others", [])]
    for name, further in found.get("further_tests", {}).items():
        told += [(f"{name}: ", one) for one in further.get("others", [])]
    rows = []
    for where, other in told:
        metric = metric_named(other["metric"])
        value, low, high = (metric.scale * number for number in (other["value"], *other["ci95"]))
        rows.append([where + metric.axis, f"{value:.1f} [{low:.1f}, {high:.1f}]"])
    return Table(["further metric", "value [95%]"], rows) if rows else None
