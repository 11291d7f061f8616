"""Loading any pruned model, also those whose shape plain `transformers` has no words for."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Protocol

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.pruned_shape import reloads_plainly, unpruned
from edgemin_hf.modeling.surgery import cut_like


class AutoClass(Protocol):
    """An `AutoModel...` class of `transformers`."""

    __name__: str
    _model_mapping: Mapping[type[PretrainedConfig], type[PreTrainedModel]]

    def from_pretrained(self, model: str | PathLike[str], **kwargs: object) -> PreTrainedModel:
        """Load a model."""
        ...

    def from_config(self, config: PretrainedConfig, **kwargs: object) -> PreTrainedModel:
        """Make a model with random weights."""
        ...


def configured_for(config: PretrainedConfig, head: AutoClass) -> bool:
    """Return whether a configuration is of a model with the head of an `AutoModelFor...` class."""
    suffix = head.__name__.removeprefix("AutoModel")
    return any(name.endswith(suffix) for name in config.architectures or ())


def load_pruned(
    model: str | PathLike[str], auto_class: AutoClass = AutoModelForSequenceClassification, **kwargs: object
) -> PreTrainedModel:
    """Load a model, pruned or not, as `auto_class.from_pretrained` would, from safetensors only.

    Where layers differ in feed-forward width, or heads are gone that this release of `transformers` has no words for,
    plain `from_pretrained` stops at the sizes of their weights; this cuts the fresh model to the shape that the
    configuration keeps before the weights go in.

    Args:
        model: Folder or Hub id.
        auto_class: An `AutoModel...` class.
        **kwargs: As `from_pretrained`.

    Returns:
        The model.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import load_pruned
        >>> from edgemin_hf.modeling import Selection, remove
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> remove(model, Selection(heads=[[0, 1], [2]], neurons=[range(48), range(16)]))
        >>> with TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     loaded = load_pruned(folder)
        >>> [layer.intermediate.dense.out_features for layer in loaded.bert.encoder.layer]
        [48, 16]
    """
    config, kwargs = AutoConfig.from_pretrained(model, return_unused_kwargs=True, **kwargs)
    kwargs = {"dtype": torch.float32, **kwargs, "config": config, "use_safetensors": True}
    if reloads_plainly(config):
        return auto_class.from_pretrained(model, **kwargs)
    plain: type[PreTrainedModel] = auto_class._model_mapping[type(config)]
    loaded = _cutting(plain).from_pretrained(model, **kwargs)
    loaded.__class__ = plain
    return loaded


def _cutting(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a class that makes models of `plain` in the shape that their configuration keeps."""

    def init(self: PreTrainedModel, config: PretrainedConfig, *args: object, **kwargs: object) -> None:
        plain.__init__(self, unpruned(config), *args, **kwargs)
        cut_like(self, config)

    return type(plain.__name__, (plain,), {"__init__": init})
