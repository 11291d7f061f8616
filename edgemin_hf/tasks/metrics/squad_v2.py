"""Exact match and F1 of SQuAD v2.0, as a module of `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from datasets import Features, Value
from evaluate import MetricInfo

from edgemin_hf.tasks.metrics.answer_texts import FOUND, RIGHT, best_of, exact, f1_of_words, normalized
from edgemin_hf.tasks.metrics.base import Answer, LocalMetric, Statistics, Values
from edgemin_hf.tasks.metrics.no_answer import best_cut


class SquadV2(LocalMetric):
    """Exact match and F1 of questions, some of which have no answer, as SQuAD v2.0's official script has them.

    Where there is no answer the right text is the empty one, and nothing else scores.
    """

    results: ClassVar[Mapping[str, str]] = {
        "f1": "F1 of answers",
        "exact": "exact match",
        "HasAns_f1": "F1 of answers where there is one",
        "HasAns_exact": "exact match where there is an answer",
        "NoAns_f1": "F1 where there is no answer",
        "NoAns_exact": "exact match where there is no answer",
    }
    answers: ClassVar[tuple[Answer, ...]] = ("answers",)

    @staticmethod
    def statistic(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> Statistics:
        """Return its values. See `LocalMetric.statistic`."""
        answered, scores = _scores(references, predictions)
        return lambda weights: _means(answered, scores, weights)

    def _info(self) -> MetricInfo:
        found = {**FOUND, "no_answer_probability": Value("float32")}
        features = Features({"predictions": found, "references": RIGHT})
        return MetricInfo(description=self.__doc__ or "", citation="", features=features)

    def _compute(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, float]:  # type: ignore[override]
        """Compute what `evaluate` gives, in percent; what is above the threshold counts as "no answer".

        Beside the results stand the best that another threshold would give, and that threshold.
        """
        found = {row["id"]: row for row in predictions}
        asked = [row for row in references if row["id"] in found]
        texts = [found[row["id"]]["prediction_text"] for row in asked]
        none = np.array([found[row["id"]]["no_answer_probability"] for row in asked])
        answered, scores = _scores([row["answers"]["text"] for row in asked], texts)
        kept = {name: np.where(none > no_answer_threshold, ~answered, score) for name, score in scores.items()}
        means = _means(answered, kept, np.ones((1, len(asked))))
        told: dict[str, float] = {}
        for part, counted in _parts(answered).items():
            if counted.any():
                told |= {f"{part}{name}": 100 * float(means[f"{part}{name}"][0]) for name in scores}
                told[f"{part}total"] = int(counted.sum())
        for name, score in scores.items():
            gains = np.where(answered, score, [-float(bool(text)) for text in texts])
            value, threshold = best_cut(none, gains, together=False)
            told[f"best_{name}"] = 100 * (value + int((~answered).sum())) / len(asked)
            told[f"best_{name}_thresh"] = 0.0 if threshold is None else threshold
        return told


def _scores(references: Sequence[Sequence[str]], predictions: Sequence[str]) -> tuple[Any, dict[str, Values]]:
    """Return which questions have an answer, bool (examples,), and each one's scores."""
    # As the official script has it, a right answer of which nothing is left counts as none where others are compared.
    right = [[text for text in texts if normalized(text)] or [""] for texts in references]
    scores = {"exact": best_of(exact, right, predictions), "f1": best_of(_f1, right, predictions)}
    return np.array([bool(list(texts)) for texts in references]), scores


def _f1(found: str, right: str) -> float:
    """Return the F1 of words; where one has none, whether the other has none either."""
    if not normalized(found) or not normalized(right):
        return float(normalized(found) == normalized(right))
    return f1_of_words(found, right)


def _parts(answered: Any) -> dict[str, Any]:
    """Return which questions count for which results, by how their names begin."""
    return {"": np.ones_like(answered), "HasAns_": answered, "NoAns_": ~answered}


def _means(answered: Any, scores: Mapping[str, Values], weights: Values) -> dict[str, Values]:
    """Return the mean of each score over all questions, those with an answer and those without, by a result's name."""
    return {
        f"{part}{name}": weights @ (score * counted) / np.maximum(weights @ counted, 1)
        for part, counted in _parts(answered).items()
        for name, score in scores.items()
    }
