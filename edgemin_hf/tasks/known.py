"""The tasks that there are: a new one is a file, and a place in `TASKS`."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PretrainedConfig

from edgemin_hf.tasks.metrics import metric_named
from edgemin_hf.tasks.multi_label import MultiLabel
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.tasks.text_classification import TextClassification

TASKS: dict[str, type[TextTask]] = {
    "text_classification": TextClassification,
    "regression": Regression,
    "multi_label": MultiLabel,
}
"""The tasks by their `type`."""


_OF_LABEL_SETS = ("f1_micro", "f1_macro")
"""Metrics of labels and of label sets that by themselves mean the latter, as they did when they were theirs alone."""


def task_type(settings: Mapping[str, object]) -> str:
    """Return the type of a task's settings: the one that they name, else the one whose metric they name.

    Without either it is text classification.
    """
    if settings.get("type") is not None:
        return str(settings["type"])
    choice = settings.get("metric")
    first = choice[0] if isinstance(choice, list | tuple) and choice else choice
    name = first.get("name") if isinstance(first, Mapping) else first
    if name in _OF_LABEL_SETS:
        return "multi_label"
    local = metric_named(str(name)).local
    answers = ("label",) if local is None else local.answers
    return next((name for name, task in TASKS.items() if task.answer in answers), "text_classification")


def task_of(config: PretrainedConfig) -> type[TextTask]:
    """Return the task that a model of a configuration has a head for.

    Raises:
        ValueError: If there is none.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.tasks import task_of
        >>> task_of(BertConfig(num_labels=3)).__name__, task_of(BertConfig(num_labels=1)).__name__
        ('TextClassification', 'Regression')
    """
    for task in TASKS.values():
        if task.compatible(config):
            return task
    implied = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    raise ValueError(
        f"model: problem_type {implied} with {config.num_labels} label(s); allowed: single_label_classification with "
        "two or more, regression with one, multi_label_classification"
    )
