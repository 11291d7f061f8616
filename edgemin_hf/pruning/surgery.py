"""Removing heads and feed-forward neurons in place: smaller matrices, no masks, the masked model's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.encoder import Encoder, Layer
from edgemin_hf.families import Family, family_of, shape_of


@dataclass(frozen=True)
class Selection:
    """What stays of each layer, as indices into what it has now.

    Attributes:
        heads: For each layer the heads that stay.
        neurons: For each layer the feed-forward neurons that stay; as many in each.
    """

    heads: Sequence[Sequence[int]]
    neurons: Sequence[Sequence[int]]


def check_prunable(config: PretrainedConfig, *, heads: bool = False, neurons: bool = False) -> None:
    """Checks that heads or neurons can be removed from a family's layers.

    Args:
        config: The model's configuration.
        heads: Whether heads are to go.
        neurons: Whether feed-forward neurons are to go.

    Raises:
        ValueError: If they can't, naming the family.
    """
    family = family_of(config)
    if heads and family.pruned_heads is None:
        raise ValueError(
            f"head_sparsity: above 0 for model type {config.model_type!r}, whose layers can't lose heads of their own; "
            "allowed: 0"
        )
    if neurons and not family.neurons_prunable:
        raise ValueError(
            f"ffn_sparsity: above 0 for model type {config.model_type!r}, whose feed-forward networks are shared or "
            "gated; allowed: 0"
        )


def remove(model: PreTrainedModel, selection: Selection) -> None:
    """Removes, in place, what a selection leaves out, and writes the new shape into the model's configuration.

    The result reloads with plain `from_pretrained`: `config.pruned_heads` lists the removed heads by their first
    numbers, and all layers have the same feed-forward width. Optimizers made before hold dead parameters.

    Args:
        model: The model to cut.
        selection: What stays.

    Raises:
        ValueError: If the family can't lose what is to go, or layers would differ in feed-forward width.
    """
    encoder = Encoder(model)
    widths = {len(neurons) for neurons in selection.neurons}
    if len(widths) != 1:
        raise ValueError(f"neurons: {sorted(widths)} stay by layer; allowed: the same number in each")
    for index, (layer, heads, neurons) in enumerate(
        zip(encoder.layers, selection.heads, selection.neurons, strict=True)
    ):
        if len(heads) < layer.num_heads:
            check_prunable(model.config, heads=True)
            _remove_heads(layer, encoder, index, heads)
        if len(neurons) < layer.num_neurons:
            check_prunable(model.config, neurons=True)
            setattr(model.config, encoder.family.ffn_width, len(neurons))
            _keep_outputs(layer.ffn_in, torch.as_tensor(neurons))
            _keep_inputs(layer.ffn_out, torch.as_tensor(neurons))


def resize_like(model: PreTrainedModel, config: PretrainedConfig) -> None:
    """Cuts a model to the shape of another's configuration, to load that one's weights into it.

    Which neurons go does not matter then; the removed heads are those of the configuration.

    Args:
        model: A model of that architecture, at least as large.
        config: The configuration of a pruned model.
    """
    encoder = Encoder(model)
    width = shape_of(config).intermediate_size
    gone = {int(layer): set(heads) for layer, heads in config.pruned_heads.items()}
    heads = []
    for index, layer in enumerate(encoder.layers):
        numbers = _first_numbers(layer, encoder, index)
        heads.append([i for i, number in enumerate(numbers) if number not in gone.get(index, ())])
    remove(model, Selection(heads, [range(width)] * len(heads)))


def _remove_heads(layer: Layer, encoder: Encoder, index: int, kept: Sequence[int]) -> None:
    numbers = _first_numbers(layer, encoder, index)
    size = encoder.head_size
    rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in kept])
    for projection in (layer.q, layer.k, layer.v):
        _keep_outputs(projection, rows)
    _keep_inputs(layer.attention_output, rows)
    family: Family = encoder.family
    gone = sorted(set(range(encoder.config.num_attention_heads)) - {numbers[head] for head in kept})
    _set(layer.module, family.head_count, len(kept))
    _set(layer.module, family.head_width, len(kept) * size)
    _set(layer.module, str(family.pruned_heads), set(gone))
    encoder.config.pruned_heads[index] = gone


def _first_numbers(layer: Layer, encoder: Encoder, index: int) -> list[int]:
    """Returns the numbers that a layer's heads had before any was removed."""
    gone = encoder.config.pruned_heads.get(index, ())
    numbers = [head for head in range(encoder.config.num_attention_heads) if head not in gone]
    if len(numbers) != layer.num_heads:
        raise ValueError(f"pruned_heads: {list(gone)} of layer {index}, which has {layer.num_heads} heads")
    return numbers


def _keep_outputs(linear: nn.Linear, index: Tensor) -> None:
    linear.weight = _slice(linear.weight, 0, index)
    if linear.bias is not None:
        linear.bias = _slice(linear.bias, 0, index)
    linear.out_features = len(index)


def _keep_inputs(linear: nn.Linear, index: Tensor) -> None:
    linear.weight = _slice(linear.weight, 1, index)
    linear.in_features = len(index)


def _slice(parameter: nn.Parameter, dim: int, index: Tensor) -> nn.Parameter:
    kept = parameter.detach().index_select(dim, index.to(parameter.device))
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def _set(module: nn.Module, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    setattr(attrgetter(".".join(parents))(module) if parents else module, name, value)
