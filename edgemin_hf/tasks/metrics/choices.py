"""The metrics that a recipe asks for, checked against what its task gives."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from edgemin_hf.tasks.labels import number_of, shown
from edgemin_hf.tasks.metrics.base import Answer
from edgemin_hf.tasks.metrics.known import DEFAULTS, MODULES, Choice, Metric, local_module, metric_named

_OWN = {"name": str, "result": str, "greater_is_better": bool, "decides": bool, "trust_remote_code": bool}


def metrics_of(choices: Choice | Sequence[Choice], answer: Answer) -> list[Metric]:
    """Return the metrics that a recipe asks for, the one that decides first.

    Args:
        choices: A metric, or several, of which the first decides or the one that says so (`decides: true`).
        answer: What the task's labels and predictions are.

    Raises:
        ValueError: If there is no such metric or setting, or it needs what the task does not give.

    Example:
        >>> from edgemin_hf.tasks.metrics import metrics_of
        >>> asked = ["accuracy", {"name": "f1", "average": "macro", "decides": True}]
        >>> [metric.name for metric in metrics_of(asked, "label")]
        ['f1_macro', 'accuracy']
    """
    listed: list[Choice] = [choices] if isinstance(choices, str | dict) else list(choices)
    if not listed:
        raise ValueError("metric: []; expected: one or more")
    metrics = [_metric(choice, answer) for choice in listed]
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"metric: {', '.join(names)}; allowed: each once")
    deciding = [
        m for m, choice in zip(metrics, listed, strict=True) if isinstance(choice, dict) and choice.get("decides")
    ]
    if len(deciding) > 1:
        raise ValueError(f"metric: {' and '.join(m.name for m in deciding)} with decides: true; allowed: one of them")
    first = [*deciding, metrics[0]][0]
    return [first, *(metric for metric in metrics if metric is not first)]


def allowed_for(answer: Answer) -> str:
    """Return which metrics a task may have, for a message."""
    names = [name for name in MODULES if answer in local_module(name).answers]
    if answer == "label set":
        names = [n for name in names for n in ([f"{name}_micro", f"{name}_macro"] if _averages(name) else [name])]
    other = "another module of `evaluate` by path or Hub id (owner/name), with trust_remote_code: true"
    return f"{', '.join(names)}, or {other}"


def _averages(module: str) -> bool:
    return "average" in inspect.signature(local_module(module).statistic).parameters


def _metric(choice: Choice, answer: Answer) -> Metric:
    told: dict[str, Any] = {"name": choice} if isinstance(choice, str) else dict(choice)
    for name, kind in _OWN.items():
        if name in told and not isinstance(told[name], kind):
            raise ValueError(f"metric.{name}: {told[name]}; expected: {'text' if kind is str else 'true or false'}")
    if not told.get("name"):
        raise ValueError(f"metric: {told} without name; allowed: {allowed_for(answer)}")
    given, settings = told["name"], {name: value for name, value in told.items() if name not in _OWN}
    metric = metric_named(given)
    if metric.local is None:
        if "/" not in given and not given.endswith(".py"):
            raise ValueError(f"metric: {given}; allowed: {allowed_for(answer)}")
        if not told.get("trust_remote_code"):
            raise ValueError(f"metric: {given}, whose code would run here; expected: trust_remote_code: true beside it")
        return Metric(given, settings, told.get("result"), told.get("greater_is_better", True))
    if answer not in metric.local.answers:
        of = " or ".join(f"{kind}s" if kind != "answers" else kind for kind in metric.local.answers).replace("ss", "s")
        raise ValueError(f"metric: {given}, which is of {of}; allowed: {allowed_for(answer)}")
    if "greater_is_better" in told:
        raise ValueError(f"metric.greater_is_better: {told['greater_is_better']} of {given}; allowed: of other modules")
    default = DEFAULTS[answer]
    usual = default if isinstance(default, dict) and default["name"] == metric.module else {}
    settings = {**{name: value for name, value in usual.items() if name not in _OWN}, **metric.settings, **settings}
    return _checked(metric, given, settings, told.get("result"), answer)


def _checked(metric: Metric, given: str, settings: Mapping[str, Any], result: str | None, answer: Answer) -> Metric:
    """Check the settings of a metric that ships, and its result."""
    assert metric.local is not None  # noqa: S101 - the caller's
    hints = get_type_hints(metric.local.statistic)
    known = [name for name in hints if name not in ("references", "predictions", "return")]
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"metric.{name}: {value} of {given}; allowed: {', '.join(known) or 'no settings'}")
        if name == "pos_label" and isinstance(value, str):  # a label's name, which the data knows
            continue
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise ValueError(f"metric.{name}: {value} of {given}; allowed: {message}") from None
    average = settings.get("average", "binary" if "average" in known else None)
    if average == ("binary" if answer == "label set" else "samples"):
        means = "micro, macro, weighted" + (", samples" if answer == "label set" else ", binary")
        raise ValueError(f"metric.average: {average} of {given} of {answer}s; allowed: {means}")
    if "pos_label" in settings and average != "binary":
        raise ValueError(f"metric.pos_label: {settings['pos_label']} beside average: {average}; allowed: beside binary")
    if result is not None and result not in metric.local.results:
        raise ValueError(f"metric.result: {result} of {given}; allowed: {', '.join(metric.local.results)}")
    result = result or metric.result
    first = result is None or result == next(iter(metric.local.results))
    return replace(metric, settings=dict(settings), result=None if first else result)


def numbered(metric: Metric, labels: Mapping[str, int]) -> Metric:
    """Return a metric whose `pos_label` is a number, and check that labels are two where it takes the second.

    Args:
        metric: The metric.
        labels: Number of each label.

    Raises:
        ValueError: If they are not, or the label is not known.
    """
    if metric.local is None or not _averages(metric.module) or metric.average is not None:
        return metric
    given = metric.settings.get("pos_label")
    if given is None and len(labels) != 2:
        allowed = "two labels, a pos_label, or an average such as macro"
        raise ValueError(f"metric: {metric.name} with {len(labels)} label(s); allowed: {allowed}")
    if given is None:
        return metric
    number = number_of(str(given), labels)
    if number is None and given in labels.values():
        number = given
    if number is None:
        raise ValueError(f"metric.pos_label: {given}; allowed: {shown(labels)}")
    return replace(metric, settings={**metric.settings, "pos_label": number})
