"""The tasks that there are: a new one is a file, and a place in `TASKS`."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.tasks.glue import Glue
from edgemin_hf.tasks.masked_lm import MaskedLM
from edgemin_hf.tasks.metrics import metric_named
from edgemin_hf.tasks.multi_label import MultiLabel
from edgemin_hf.tasks.question_answering import QuestionAnswering
from edgemin_hf.tasks.regression import Regression
from edgemin_hf.tasks.reranking import Reranking
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.tasks.token_classification import TokenClassification

TASKS: dict[str, type[TableTask]] = {
    "text_classification": TextClassification,
    "regression": Regression,
    "reranking": Reranking,
    "multi_label": MultiLabel,
    "sentence_embedding": SentenceEmbedding,
    "token_classification": TokenClassification,
    "question_answering": QuestionAnswering,
    "masked_lm": MaskedLM,
}
"""The tasks by their `type`."""


_OF_LABEL_SETS = ("f1_micro", "f1_macro")
"""Metrics of labels and of label sets that by themselves mean the latter, as they did when they were theirs alone."""


NAMED: dict[str, type] = {**TASKS, "glue": Glue}
"""What a recipe may name: these, and what stands for one of them."""


def task_type(settings: Mapping[str, object]) -> str:
    """Return the type of a task's settings: the one that they name, else the one whose metric they name.

    Without either it is text classification.
    """
    if settings.get("type") is not None:
        return str(settings["type"])
    choice = settings.get("metric")
    metric = choice[0] if isinstance(choice, list | tuple) and choice else choice
    name = metric.get("name") if isinstance(metric, Mapping) else metric
    if name in _OF_LABEL_SETS:
        return "multi_label"
    local = metric_named(str(name)).local
    answers = ("label",) if local is None else local.answers
    return next((name for name, task in TASKS.items() if task.answer in answers), "text_classification")


def named_config(model: PreTrainedModel) -> PretrainedConfig:
    """Return a model's configuration as it would be saved: with the class of the model in `architectures`."""
    config = copy.copy(model.config)
    config.architectures = [type(model).__name__]
    return config


def task_of(model: PreTrainedModel | PretrainedConfig) -> type[TableTask]:
    """Return the task that a model, or one of a configuration, has a head for.

    A configuration without `architectures` is taken for a text classifier's or a regressor's.

    Raises:
        ValueError: If there is none.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.tasks import task_of
        >>> task_of(BertConfig(num_labels=3)).__name__, task_of(BertConfig(num_labels=1)).__name__
        ('TextClassification', 'Regression')
    """
    config = named_config(model) if isinstance(model, PreTrainedModel) else model
    fitting = [task for task in TASKS.values() if task.compatible(config)]
    if fitting:
        return next((task for task in fitting if configured_for(config, task.auto_class)), fitting[0])
    implied = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    raise ValueError(
        f"model: problem_type {implied} with {config.num_labels} label(s); allowed: single_label_classification with "
        "two or more, regression with one, multi_label_classification"
    )
