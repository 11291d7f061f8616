"""Exact match of texts, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from datasets import Features, Value
from evaluate import MetricInfo

from edgemin_hf.tasks.metrics.answer_texts import best_of
from edgemin_hf.tasks.metrics.base import Answer, LocalMetric, Statistics


class ExactMatch(LocalMetric):
    """The share of answers that are one of the right ones to the letter, or but for case."""

    results: ClassVar[Mapping[str, str]] = {"exact_match": "exact match"}
    answers: ClassVar[tuple[Answer, ...]] = ("answers",)

    @staticmethod
    def statistic(
        references: Sequence[Sequence[str]], predictions: Sequence[str], ignore_case: bool = False
    ) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""

        def same(found: str, right: str) -> float:
            return float(found.casefold() == right.casefold() if ignore_case else found == right)

        # No answer is the empty one, as in SQuAD v2.0.
        hits = best_of(same, [list(texts) or [""] for texts in references], predictions)
        return lambda weights: {"exact_match": weights @ hits / weights.sum(axis=1)}

    def _info(self) -> MetricInfo:
        features = Features({"predictions": Value("string"), "references": Value("string")})
        return MetricInfo(description=self.__doc__ or "", citation="", features=features)

    def _compute(self, predictions: Any, references: Any, **settings: Any) -> dict[str, float]:
        """Compute what `evaluate` gives, from one right text each."""
        return super()._compute(predictions, [[text] for text in references], **settings)
