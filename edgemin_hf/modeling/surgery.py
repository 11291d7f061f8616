"""Removing heads, feed-forward neurons and layers in place: smaller matrices, no masks, the masked model's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.mpnet import keep_bias_heads
from edgemin_hf.modeling.pruned_shape import (
    PrunedShape,
    layer_numbers,
    pruned_shape,
    write_layer_numbers,
    write_pruned_shape,
)


@dataclass(frozen=True)
class Selection:
    """What stays of each layer, as indices into what it has now.

    Attributes:
        heads: For each layer (of ALBERT: each group of shared layers) the heads that stay.
        neurons: Likewise the feed-forward neurons that stay.

    Example:
        >>> from edgemin_hf.modeling import Selection
        >>> kept = Selection(heads=[[0, 1], [2]], neurons=[range(48), range(16)])
        >>> [len(heads) for heads in kept.heads]
        [2, 1]
    """

    heads: Sequence[Sequence[int]]
    neurons: Sequence[Sequence[int]]

    def plain(self) -> list[list[list[int]]]:
        """Return the heads and the neurons of each layer as lists."""
        return [[list(kept) for kept in kind] for kind in (self.heads, self.neurons)]


def check_prunable(config: PretrainedConfig, *, heads: bool = False, layers: bool = False) -> None:
    """Check that heads or layers can be removed from a model; feed-forward neurons always can.

    Args:
        config: The model's configuration.
        heads: Whether heads are to go.
        layers: Whether layers are to go.

    Raises:
        ValueError: If they can't, naming the family.
    """
    if heads and getattr(config, "talking_head", False):
        raise ValueError("head_sparsity: above 0 for a model whose heads mix (talking_head); allowed: 0")
    if layers and family_of(config).layers_differ:
        raise ValueError(
            f"layer_sparsity: above 0 for model type {config.model_type!r}, whose layers share weights or differ by "
            "their number; allowed: 0"
        )


def remove(model: PreTrainedModel, selection: Selection) -> None:
    """Remove, in place, what a selection leaves out, and write the new shape into the model's configuration.

    Where `reloads_plainly` says so, plain `from_pretrained` loads the result: all layers have one feed-forward width,
    and up to transformers 4 `config.pruned_heads` lists the removed heads by their first numbers. `load_pruned` loads
    any. Optimizers made before hold dead parameters.

    Args:
        model: The model to cut.
        selection: What stays.

    Raises:
        ValueError: If the model can't lose what is to go.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.modeling import Encoder, Selection, remove
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertModel(BertConfig(vocab_size=50, **shape))
        >>> remove(model, Selection(heads=[[0, 1], [2]], neurons=[range(48), range(48)]))
        >>> [layer.num_heads for layer in Encoder(model).layers], model.config.intermediate_size
        ([2, 1], 48)
    """
    encoder, shape = Encoder(model), pruned_shape(model.config)
    kept = zip(encoder.blocks, shape.heads, selection.heads, selection.neurons, strict=True)
    numbers, widths = [], []
    for block, first, heads, neurons in kept:
        if len(first) != block.num_heads:
            raise ValueError(f"config: a layer with {len(first)} heads; allowed: {block.num_heads}, as the model has")
        if len(heads) < block.num_heads:
            check_prunable(model.config, heads=True)
            _keep_heads(block, encoder, torch.as_tensor(heads, device="cpu"))
        if len(neurons) < block.num_neurons:
            _keep_neurons(block, encoder, torch.as_tensor(neurons, device="cpu"))
        numbers.append([first[head] for head in heads])
        widths.append(len(neurons))
    _write_shape(encoder, PrunedShape(numbers, widths))


def remove_layers(model: PreTrainedModel, kept: Sequence[int]) -> None:
    """Remove, in place, all layers but those of `kept`, numbers from 0 in their order.

    Raises:
        ValueError: If the model's family can't lose layers.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.modeling import remove_layers
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertModel(BertConfig(vocab_size=50, **shape))
        >>> remove_layers(model, [0, 2])
        >>> model.config.num_hidden_layers
        2
    """
    encoder, shape = Encoder(model), pruned_shape(model.config)
    if len(kept) == model.config.num_hidden_layers:
        return
    check_prunable(model.config, layers=True)
    modules = attrgetter(encoder.family.layers)(encoder.base)
    _set(encoder.base, encoder.family.layers, nn.ModuleList(modules[layer] for layer in kept))
    model.config.num_hidden_layers = len(kept)
    numbers = layer_numbers(model.config)
    write_layer_numbers(model.config, numbers and [numbers[layer] for layer in kept])
    _write_shape(encoder, PrunedShape([shape.heads[i] for i in kept], [shape.neurons[i] for i in kept]))


def cut_like(model: PreTrainedModel, config: PretrainedConfig) -> None:
    """Cut a model to the shape of another's configuration, to load that one's weights into it.

    Which neurons go does not matter then. The heads that stay are those of the configuration, and so are the layers
    where both number them, since a layer's number may decide on its precision.

    Args:
        model: A model of that architecture, at least as large.
        config: The configuration of a pruned model.
    """
    goal = pruned_shape(config)
    first, kept = layer_numbers(model.config), layer_numbers(config)
    if first is None or kept is None:
        remove_layers(model, range(config.num_hidden_layers))
        write_layer_numbers(model.config, kept)
    else:
        remove_layers(model, [first.index(number) for number in kept])
    now = pruned_shape(model.config)
    heads = [[first.index(number) for number in kept] for first, kept in zip(now.heads, goal.heads, strict=True)]
    remove(model, Selection(heads, [range(width) for width in goal.neurons]))


def _write_shape(encoder: Encoder, shape: PrunedShape) -> None:
    """Write the shape into the configuration, and for plain `transformers` into the modules too."""
    write_pruned_shape(encoder.config, shape)
    if encoder.family.pruned_heads is not None:
        every = set(range(encoder.config.num_attention_heads))
        for block, heads in zip(encoder.blocks, shape.heads, strict=True):
            _set(block.module, encoder.family.pruned_heads, every - set(heads))


def _keep_heads(block: Layer, encoder: Encoder, heads: Tensor) -> None:
    size, family, old = encoder.head_size, encoder.family, block.num_heads
    rows = (heads[:, None] * size + torch.arange(size, device="cpu")).flatten()
    fused = {None: rows, "thirds": stacked(rows, old * size, 3)}
    if family.fused == "by head":  # each head's three projections in turn
        fused["by head"] = (heads[:, None] * 3 * size + torch.arange(3 * size, device="cpu")).flatten()
    for path in dict.fromkeys([family.q, family.k, family.v]):
        _keep_rows(block.module, path, fused[family.fused])
    for path in family.head_rows:
        _keep_rows(block.module, path, rows)
    _keep_inputs(block.attention_output, rows)
    _set(block.module, family.head_count, len(heads))
    _set(block.module, family.head_width, len(rows))
    if encoder.config.model_type == "mpnet":
        attention = block.module.attention.attn
        first = getattr(attention, "bias_heads", range(old))
        keep_bias_heads(attention, [first[head] for head in heads.tolist()])


def _keep_neurons(block: Layer, encoder: Encoder, neurons: Tensor) -> None:
    rows = stacked(neurons, block.num_neurons, 2) if encoder.family.gates else neurons
    _keep_rows(block.module, encoder.family.ffn_in, rows)
    _keep_inputs(block.ffn_out, neurons)


def _keep_rows(module: nn.Module, path: str, rows: Tensor) -> None:
    """Keep rows of a linear layer, or of a parameter; what the family's other members have is passed over."""
    *parents, name = path.split(".")
    parent = attrgetter(".".join(parents))(module) if parents else module
    found = getattr(parent, name, None)
    if isinstance(found, nn.Linear):
        found.weight = _kept(found.weight, 0, rows)
        if found.bias is not None:
            found.bias = _kept(found.bias, 0, rows)
        found.out_features = len(rows)
        if getattr(found, "weight_scale", None) is not None:  # of a fake-quantised layer with fixed scales
            found.weight_scale = found.weight_scale.index_select(0, rows.to(found.weight_scale.device))
    elif found is not None:
        setattr(parent, name, _kept(found, 0, rows))


def _keep_inputs(linear: nn.Linear, columns: Tensor) -> None:
    linear.weight = _kept(linear.weight, 1, columns)
    linear.in_features = len(columns)


def _kept(parameter: nn.Parameter, dim: int, index: Tensor) -> nn.Parameter:
    kept = parameter.detach().index_select(dim, index.to(parameter.device))
    return nn.Parameter(kept, requires_grad=parameter.requires_grad)


def stacked(rows: Tensor, of: int, parts: int) -> Tensor:
    """Return the same rows of each of several matrices, of as many rows each, that stand one upon the other in one."""
    return torch.cat([rows + part * of for part in range(parts)])


def _set(module: nn.Module, path: str, value: object) -> None:
    *parents, name = path.split(".")
    setattr(attrgetter(".".join(parents))(module) if parents else module, name, value)
