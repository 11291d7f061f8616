"""What a cross-encoder of sentence-transformers makes of its one logit, wherever its release wrote that down."""

from __future__ import annotations

from os import PathLike
from typing import cast

from transformers import PretrainedConfig

from edgemin_hf.modeling.sentence_modules import is_object, read_json

ACTIVATION = "sentence_transformers"
"""The configuration's field of it since sentence-transformers 4, {"activation_fn": ...}, which later ones read too."""
_OLD_ACTIVATION = "sbert_ce_default_activation_function"
"""That of earlier releases, the name alone."""
_SIGMOID = "torch.nn.modules.activation.Sigmoid"


def activation_of(config: PretrainedConfig) -> str:
    """Return the name of the function that a score is made with: where nothing is told a sigmoid.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.modeling.cross_encoder import activation_of
        >>> activation_of(BertConfig(sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}))
        'torch.nn.modules.linear.Identity'
    """
    told = cast(dict[str, str], getattr(config, ACTIVATION, None) or {})
    return told.get("activation_fn") or _SIGMOID


def keep_activation(config: PretrainedConfig, model: str | PathLike[str]) -> None:
    """Write into a configuration, under `ACTIVATION`, what a checkpoint says of it elsewhere.

    That is a file of its own as release 5.4 and later write it, or the field of releases before 4.

    Args:
        config: The configuration, of a model with one output.
        model: Folder or Hub id of the checkpoint.
    """
    file = read_json(str(model), "config_sentence_transformers.json")
    told = getattr(config, _OLD_ACTIVATION, None)
    if is_object(file) and file.get("model_type") == "CrossEncoder":
        told = file.get("activation_fn") or told
    if told:
        setattr(config, ACTIVATION, {"activation_fn": told})
