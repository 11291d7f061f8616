"""F1 of entities, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from edgemin_hf.tasks.metrics.base import Answer, LocalMetric, Statistics, Values, total
from edgemin_hf.tasks.metrics.counts import Counts, rows_of
from edgemin_hf.tasks.metrics.entities import Mode, Scheme, counts_of_entities


class Seqeval(LocalMetric):
    """Precision, recall and F1 of all entities together, and the share of right tags, as in the package seqeval."""

    results: ClassVar[Mapping[str, str]] = {
        "overall_f1": "entity F1",
        "overall_precision": "entity precision",
        "overall_recall": "entity recall",
        "overall_accuracy": "accuracy of tags",
    }
    answers: ClassVar[tuple[Answer, ...]] = ("tags",)

    @staticmethod
    def statistic(
        references: Sequence[Sequence[str]],
        predictions: Sequence[Sequence[str]],
        scheme: Scheme | None = None,
        mode: Mode | None = None,
        suffix: bool = False,
    ) -> Statistics:
        """Return its values. See `LocalMetric.statistic` and `counts_of_entities`."""
        counts, _ = counts_of_entities(references, predictions, scheme, mode, suffix)
        entities = Counts(*(part.sum(axis=1) for part in counts))  # of all types
        right = [sum(map(str.__eq__, *pair)) for pair in zip(references, predictions, strict=True)]
        words = np.array([right, [len(tags) for tags in references]], dtype=float).T

        def values(weights: Values) -> dict[str, Values]:
            sums = Counts(*(weights @ part for part in entities))
            parts: dict[str, Values] = {f"overall_{name}": sums.part(name) for name in ("f1", "precision", "recall")}
            shares = total(words, weights)
            return {**parts, "overall_accuracy": shares[:, 0] / np.maximum(shares[:, 1], 1)}

        return values

    def _compute(self, predictions: Any, references: Any, **settings: Any) -> dict[str, Any]:
        """Compute what `evaluate` gives: beside the results of all those of each type."""
        counts, types = counts_of_entities(references, predictions, **settings)
        of_types = {str(row.pop("name")): {**row, "number": row.pop("support")} for row in rows_of(counts, types)}
        return {**of_types, **super()._compute(predictions, references, **settings)}
