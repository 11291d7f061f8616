"""Loading any pruned model, also those whose shape plain `transformers` has no words for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from edgemin_hf.modeling.auto_class import AutoClass, configured_for, model_class, new_model
from edgemin_hf.modeling.cross_encoder import keep_activation
from edgemin_hf.modeling.embedder import EMBEDDER, SENTENCE
from edgemin_hf.modeling.embedder_files import read_dense, set_sentence_head
from edgemin_hf.modeling.pooling import CLASSIFIER, POOLING
from edgemin_hf.modeling.pruned_shape import reloads_plainly, unpruned
from edgemin_hf.modeling.sentence_modules import sentence_pooling
from edgemin_hf.modeling.surgery import cut_like
from edgemin_hf.modeling.weights import (
    Report,
    check_encoder,
    head_to_replace,
    is_head,
    not_finite,
    same_labels,
    tell_new,
)
from edgemin_hf.utils.weight_files import WeightsError, names_of, weight_shapes

_FOR_OTHERS = "ignore_mismatched_sizes"
"""The argument of `from_pretrained` that lets a head be for other labels."""


def load_pruned(
    model: str | PathLike[str], auto_class: AutoClass = AutoModelForSequenceClassification, **kwargs: object
) -> PreTrainedModel:
    """Load a model in float32, pruned or not, as `auto_class.from_pretrained` would, from safetensors only.

    Where layers differ in feed-forward width, or heads are gone that this release of `transformers` has no words for,
    plain `from_pretrained` stops at the sizes of their weights; this cuts the fresh model to the shape that the
    configuration keeps before the weights go in. What of the encoder is missing, or has another shape than its
    configuration, is an error. A head that is new is told by a warning; one of another task is replaced, and told too.

    Args:
        model: Folder or Hub id.
        auto_class: An `AutoModel...` class.
        **kwargs: As `from_pretrained`. With `ignore_mismatched_sizes=True` a head for other labels than those given
            here is replaced too. `classifier_pooling`, "cls" or "mean", is what a new classifier is to read; without
            it that is what the checkpoint's own says, or what sentence-transformers reads the encoder by.

    Returns:
        The model, in float32 whatever the checkpoint's dtype, if no other `dtype` is given.

    Raises:
        WeightsError: If its weights are not those that its configuration promises; a ValueError of one line.

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
    return load_reporting(model, auto_class, **kwargs)[0]


def check_checkpoint(model: str | PathLike[str], auto_class: AutoClass, **kwargs: object) -> None:
    """Check, by the heads of its files, that a checkpoint's weights are those that its configuration promises.

    No weights are loaded: the model is built without any.

    Args:
        model: Folder.
        auto_class: The `AutoModel...` class that it will be loaded with.
        **kwargs: As `load_pruned`.

    Raises:
        WeightsError: As `load_pruned`.
    """
    held, pooling = weight_shapes(Path(model)), kwargs.pop(_pooling_field(auto_class), None)
    saved, config = AutoConfig.from_pretrained(model), AutoConfig.from_pretrained(model, **kwargs)
    set_pooling(config, model, auto_class, pooling)
    try:
        empty = empty_model(auto_class, config)
    except (KeyError, TypeError, RuntimeError, ArithmeticError) as error:  # such as an activation that there is not
        raise WeightsError(f"{model}: its configuration makes no model ({type(error).__name__}: {error})") from None
    report = Report.by_names(empty, held)
    check_encoder(empty, report, str(model), held)
    _check_head(empty, report, str(model), _is_for_others(saved, auto_class) or bool(kwargs.get(_FOR_OTHERS)))


def empty_model(auto_class: AutoClass, config: PretrainedConfig) -> PreTrainedModel:
    """Build a model without any weights, pruned as its configuration says."""
    plain = model_class(auto_class, config)
    with init_empty_weights():
        model = _cutting(plain)(config)
    model.__class__ = plain
    return model


def load_reporting(
    model: str | PathLike[str], auto_class: AutoClass, **kwargs: object
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model as `load_pruned` does; return it and the names of its tensors that are new."""
    held = weight_shapes(Path(model)) if Path(model).is_dir() else {}
    saved = AutoConfig.from_pretrained(model)
    # Before the configuration, which would take it for a field of its own.
    dtype = kwargs.pop("torch_dtype", None)
    dtype = kwargs.pop("dtype", dtype) or torch.float32
    pooling = kwargs.pop(_pooling_field(auto_class), None)
    config, kwargs = AutoConfig.from_pretrained(model, return_unused_kwargs=True, **kwargs)
    set_pooling(config, model, auto_class, pooling)
    for_others = bool(kwargs.pop(_FOR_OTHERS, False))
    kwargs = {**kwargs, "dtype": dtype, "config": config, "use_safetensors": True}
    plain = model_class(auto_class, config)
    loader = plain if reloads_plainly(config) else _cutting(plain)
    # Else transformers' own error, or pages of its warnings, would stand instead of our line.
    options = {_FOR_OTHERS: True, "output_loading_info": True, **kwargs}
    try:
        with _no_word_of_weights():
            loaded, info = loader.from_pretrained(model, **options)
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f"{model}: its weights can't be loaded: {' '.join(str(error).split())[:300]}") from error
    loaded.__class__ = plain
    report = Report.of(info)
    check_encoder(loaded, report, str(model), held)
    _check_finite(loaded, str(model))
    other_task = _is_for_others(saved, auto_class)
    replaced = _check_head(loaded, report, str(model), for_others or other_task)
    if other_task or (for_others and not same_labels(saved, loaded.config)):
        others = head_to_replace(loaded, report, other_task=other_task)
        if others:
            _take(loaded, new_model(auto_class, unpruned(loaded.config)), others)
        replaced = sorted({*replaced, *others})
    found = read_dense(loaded, str(model), report.missing, given=pooling is not None)
    missing = [name for name in report.missing if name not in found]
    tell_new(str(model), missing, replaced)
    return loaded, [*missing, *replaced]


def _pooling_field(auto_class: AutoClass) -> str:
    """Return the configuration's field that says what a head reads."""
    return SENTENCE if auto_class.__name__.endswith(EMBEDDER) else POOLING


def set_pooling(
    config: PretrainedConfig, model: str | PathLike[str], auto_class: AutoClass, pooling: object = None
) -> None:
    """Write into a checkpoint's configuration what its head is to read, if not what it says by itself.

    That of a cross-encoder gets what becomes of its score, too.

    An encoder without a classifier is read as it was trained to be: as the modules of sentence-transformers beside it
    say, where there are some. A sentence encoder is what those make of it.

    Args:
        config: The configuration.
        model: Folder or Hub id of the checkpoint.
        auto_class: The `AutoModel...` class that it is loaded with.
        pooling: "cls" or "mean", of a sentence encoder the fields of `SentenceHead`, where that is decided; None leaves
            it to the checkpoint.
    """
    if auto_class.__name__.endswith(EMBEDDER):
        set_sentence_head(config, str(model), pooling)
    if not auto_class.__name__.endswith(CLASSIFIER):
        return
    if config.num_labels == 1:
        keep_activation(config, model)
    told = POOLING in config.to_diff_dict() or configured_for(config, auto_class)
    found: object = pooling or (None if told else sentence_pooling(str(model)))
    if found is not None:
        setattr(config, POOLING, found)


@contextmanager
def _no_word_of_weights() -> Iterator[None]:
    """Keep `from_pretrained` from warning: what is missing is told by us, and ranges of quantisation have no place."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _is_for_others(saved: PretrainedConfig, auto_class: AutoClass) -> bool:
    """Return whether a checkpoint's head is of another kind of task; heads that predict words have their own names."""
    predicts_words = auto_class.__name__ == "AutoModelForMaskedLM"
    return bool(saved.architectures) and not configured_for(saved, auto_class) and not predicts_words


def _check_head(model: PreTrainedModel, report: Report, name: str, replaced: bool) -> list[str]:
    """Return the tensors of a head that have another shape; WeightsError where they must not."""
    names = [tensor for tensor in report.mismatched if is_head(model, tensor)]
    if names and not replaced:
        raise WeightsError(f"{name}: a head of another shape than its config: {names_of(names)}")
    return names


def _check_finite(model: PreTrainedModel, name: str) -> None:
    """Check that no weight is NaN or infinite: training would go on with it, and every loss be NaN."""
    if odd := not_finite(model):
        raise WeightsError(f"{name} holds weights that are NaN or infinite: {odd}")


@torch.no_grad()
def _take(model: PreTrainedModel, fresh: PreTrainedModel, names: Iterable[str]) -> None:
    values = fresh.state_dict()
    for name in names:
        model.get_parameter(name).copy_(values[name])


def _cutting(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return a class that makes models of `plain` in the shape that their configuration keeps."""

    def init(self: PreTrainedModel, config: PretrainedConfig, *args: object, **kwargs: object) -> None:
        plain.__init__(self, unpruned(config), *args, **kwargs)
        cut_like(self, config)

    return type(plain.__name__, (plain,), {"__init__": init})
