"""Classes of models by their heads: those of `transformers`, or ours where a classifier pools as theirs does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.pooling import CLASSIFIER, mean_pooled, needs_our_class


class AutoClass(Protocol):
    """An `AutoModel...` class of `transformers`."""

    __name__: str
    _model_mapping: Mapping[type[PretrainedConfig], type[PreTrainedModel]]


def configured_for(config: PretrainedConfig, head: AutoClass) -> bool:
    """Return whether a configuration is of a model with the head of an `AutoModelFor...` class."""
    suffix = head.__name__.removeprefix("AutoModel")
    return any(name.endswith(suffix) for name in config.architectures or ())


def model_class(auto_class: AutoClass, config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class of models with the head of an `AutoModel...` class, and the pooling of a configuration.

    Example:
        >>> from transformers import AutoModelForSequenceClassification, BertConfig
        >>> from edgemin_hf.modeling import model_class
        >>> config = BertConfig()
        >>> model_class(AutoModelForSequenceClassification, config).__name__
        'BertForSequenceClassification'
        >>> config.classifier_pooling = "mean"
        >>> model_class(AutoModelForSequenceClassification, config).__name__
        'BertMeanPooledForSequenceClassification'
    """
    plain: type[PreTrainedModel] = auto_class._model_mapping[type(config)]
    if plain.__name__.endswith(CLASSIFIER) and needs_our_class(config):
        return mean_pooled(plain)  # type: ignore[arg-type] # a type is hashable, whatever transformers says of its own
    return plain


def new_model(auto_class: AutoClass, config: PretrainedConfig) -> PreTrainedModel:
    """Make a model of `model_class` with random weights, in float32."""
    model: PreTrainedModel = model_class(auto_class, config)._from_config(config, dtype=torch.float32)
    return model
