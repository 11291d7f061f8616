"""What is left of a pruned model, as its configuration keeps it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

from transformers import PretrainedConfig

from edgemin_hf.modeling.families import family_of, shape_of
from edgemin_hf.modeling.pooling import saved_as_our_class
from edgemin_hf.utils.compat import RELEASE

_FIELD = "edgemin_shape"
"""The configuration's field for it. `pruned_heads` and the feed-forward width say what plain `transformers` reads."""
_NUMBERS = "edgemin_layers"
"""The configuration's field for the numbers of layers, of a model in which they decide on precisions."""


class PrunedShape(NamedTuple):
    """What is left of each layer; of ALBERT, of each group of layers that share their weights.

    Attributes:
        heads: The heads that are left, by the numbers that they had before any was removed.
        neurons: The feed-forward width.
    """

    heads: list[list[int]]
    neurons: list[int]


def pruned_shape(config: PretrainedConfig) -> PrunedShape:
    """Return what a configuration says is left of its model; all of it, where nothing was removed."""
    if hasattr(config, _FIELD):
        return PrunedShape(**getattr(config, _FIELD))
    shape, removed = shape_of(config), getattr(config, "pruned_heads", None) or {}
    gone = {int(layer): set(heads) for layer, heads in removed.items()}
    blocks = getattr(config, "num_hidden_groups", shape.num_hidden_layers)
    heads = [[h for h in range(shape.num_attention_heads) if h not in gone.get(i, ())] for i in range(blocks)]
    return PrunedShape(heads, [shape.intermediate_size] * blocks)


def write_pruned_shape(config: PretrainedConfig, shape: PrunedShape) -> None:
    """Write what is left into a configuration, in its own field and for plain `transformers`."""
    family = family_of(config)
    setattr(config, _FIELD, shape._asdict())
    setattr(config, family.ffn_width, max(shape.neurons))
    if family.pruned_heads is not None:
        gone = [sorted(set(range(config.num_attention_heads)) - set(heads)) for heads in shape.heads]
        config.pruned_heads = {index: heads for index, heads in enumerate(gone) if heads}


def layer_numbers(config: PretrainedConfig) -> list[int] | None:
    """Return the number that each layer had when the model was prepared for quantisation; None where none are kept."""
    return getattr(config, _NUMBERS, None)


def write_layer_numbers(config: PretrainedConfig, numbers: Iterable[int] | None) -> None:
    """Write those numbers into a configuration; None takes them out."""
    if numbers is not None:
        setattr(config, _NUMBERS, list(numbers))
    elif hasattr(config, _NUMBERS):
        delattr(config, _NUMBERS)


def unpruned(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration with every head, and all layers as wide as the widest."""
    config = copy.deepcopy(config)
    if hasattr(config, _FIELD):
        delattr(config, _FIELD)
    write_layer_numbers(config, None)
    if hasattr(config, "pruned_heads"):
        config.pruned_heads = {}
    return config


def plain_releases(config: PretrainedConfig) -> tuple[int, ...]:
    """Return the major releases of `transformers` whose plain `from_pretrained` loads a model of this configuration.

    All load layers of one feed-forward width. Layers without some of their heads are loaded by 4 alone, of some
    families: in 5 nothing removes heads, and the width of no family's projections is a field of its own. None loads a
    classifier that reads the mean of its tokens where the family's own does not: part of its head would be random.
    """
    heads, neurons = pruned_shape(config)
    if len(set(neurons)) > 1 or saved_as_our_class(config):
        return ()
    if all(len(kept) == config.num_attention_heads for kept in heads):
        return (4, 5)
    return (4,) if family_of(config).pruned_heads is not None else ()


def reloads_plainly(config: PretrainedConfig) -> bool:
    """Return whether the installed `transformers` loads a model of this configuration by plain `from_pretrained`."""
    return RELEASE in plain_releases(config)
