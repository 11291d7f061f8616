"""Metrics at work: those that ship, and any other module of `evaluate`, which is loaded from a path or the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import evaluate
import numpy as np
from datasets import Value

from edgemin_hf.tasks.metrics.base import FEATURES, Answer, Answers, Statistic, Values
from edgemin_hf.tasks.metrics.known import Metric


def statistic_of(metric: Metric, references: Answers, predictions: Answers) -> Statistic:
    """Return what tells a metric's value of examples that count so many times each, weights -> (resamples,).

    Raises:
        ValueError: If a module does not give the result that counts; when the statistic is called.
    """
    if metric.local is not None:
        found = metric.local.statistic(references, predictions, **metric.settings)
        result = metric.result or next(iter(metric.local.results))
        return lambda weights: found(weights)[result]
    module = other_module(metric.module)
    sides = {
        "references": _given(references, module, "references"),
        "predictions": _given(predictions, module, "predictions"),
    }

    def values(weights: Values) -> Values:
        return np.array(
            [_value(metric, module, sides, np.repeat(np.arange(len(row)), row.astype(int))) for row in weights]
        )

    return values


def examples_of(metric: Metric, references: Answers) -> int:
    """Return of how many examples a metric is a value: of rows, or of groups of them."""
    return len(references) if metric.local is None else metric.local.examples(references)


def check_module(metric: Metric, answer: Answer) -> None:
    """Load a module that does not ship, and check that it takes a task's answers.

    Args:
        metric: The metric.
        answer: What the task's labels and predictions are.

    Raises:
        ValueError: If it can't be loaded, or takes something else.

    Example:
        >>> from edgemin_hf.tasks.metrics import Metric, check_module
        >>> check_module(Metric("accuracy"), "label")  # what ships is known without being loaded
    """
    if metric.local is not None:
        return
    features = other_module(metric.module).features
    kinds = [_kinds(one) for one in (features if isinstance(features, list) else [features])]
    wanted = _kinds(FEATURES[answer]) if answer in FEATURES else None
    if not any(kind == wanted if wanted else "prediction_text" in kind[0] for kind in kinds):
        takes = " or ".join(f"predictions of {kind[0]} and references of {kind[1]}" for kind in kinds)
        raise ValueError(f"metric: {metric.module}, which takes {takes}; expected: one of {answer}s")


@cache
def other_module(module: str) -> Any:
    """Load a module by path or Hub id, once for a process.

    Raises:
        ValueError: If it can't be loaded.
    """
    try:
        return evaluate.load(module, keep_in_memory=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"metric: {module}, which can't be loaded ({reason}); allowed: the path or Hub id of a module of `evaluate`"
        ) from None


def _value(metric: Metric, module: Any, sides: Mapping[str, list[Any]], rows: Any) -> float:
    """Compute a module's value of some rows."""
    drawn = {name: [_numbered(side[row], number) for number, row in enumerate(rows)] for name, side in sides.items()}
    found = module.compute(**drawn, **metric.settings)
    name = metric.result or (metric.module.split("/")[-1].removesuffix(".py") if len(found) > 1 else next(iter(found)))
    if name not in found or not np.isscalar(found[name]):
        numbers = [key for key, value in found.items() if np.isscalar(value)]
        raise ValueError(f"metric.result: {name} of {metric.module}; allowed: {', '.join(numbers)}")
    return float(found[name])


def _given(side: Answers, module: Any, name: str) -> list[Any]:
    """Return labels or predictions as a module takes them: plain, or the texts of SQuAD's form."""
    rows = side.tolist() if isinstance(side, np.ndarray) else list(side)
    features = module.features[0] if isinstance(module.features, list) else module.features
    if not isinstance(features[name], dict):
        return rows
    if name == "references":
        return [{"id": "", "answers": {"text": list(texts), "answer_start": [0] * len(texts)}} for texts in rows]
    none = {"no_answer_probability": 0.0} if "no_answer_probability" in features[name] else {}
    return [{"id": "", "prediction_text": text, **none} for text in rows]


def _numbered(row: Any, number: int) -> Any:
    """Return a row under a number of its own: one that was drawn twice counts twice."""
    return {**row, "id": str(number)} if isinstance(row, dict) else row


def _kinds(features: Mapping[str, Any]) -> tuple[str, str]:
    return _kind(features.get("predictions")), _kind(features.get("references"))


def _kind(feature: Any) -> str:
    if isinstance(feature, Value):
        return str(feature.dtype).rstrip("0123456789").removeprefix("u").replace("large_", "")
    if isinstance(feature, list):
        return f"lists of {_kind(feature[0])}"
    inner = getattr(feature, "feature", None)
    return str(feature) if inner is None else f"lists of {_kind(inner)}"
