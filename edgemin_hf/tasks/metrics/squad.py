"""Exact match and F1 of SQuAD v1.1, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Features
from evaluate import MetricInfo

from edgemin_hf.tasks.metrics.answer_texts import FOUND, RIGHT, best_of, exact, f1_of_words
from edgemin_hf.tasks.metrics.base import Answer, LocalMetric, Statistics


class Squad(LocalMetric):
    """The share of answers that are right, and the mean F1 of their words, as SQuAD v1.1's official script has them."""

    results: ClassVar[Mapping[str, str]] = {"f1": "F1 of answers", "exact_match": "exact match"}
    answers: ClassVar[tuple[Answer, ...]] = ("answers",)

    @staticmethod
    def statistic(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        scores = {name: best_of(compare, references, predictions) for name, compare in _SCORES.items()}
        return lambda weights: {name: weights @ score / weights.sum(axis=1) for name, score in scores.items()}

    def _info(self) -> MetricInfo:
        features = Features({"predictions": FOUND, "references": RIGHT})
        return MetricInfo(description=self.__doc__ or "", citation="", features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:  # type: ignore[override]
        """Compute what `evaluate` gives, in percent; a question without a prediction counts as a wrong one."""
        found = {row["id"]: row["prediction_text"] for row in predictions}
        right = [row["answers"]["text"] if row["id"] in found else [] for row in references]
        texts = [found.get(row["id"], "") for row in references]
        values = self.statistic(right, texts)(np.ones((1, len(texts))))
        return {name: 100 * float(value[0]) for name, value in values.items()}


_SCORES = {"f1": f1_of_words, "exact_match": exact}
