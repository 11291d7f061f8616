"""Removing layers: one by one, the layer without which the loss is least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import check_prunable, remove_layers
from edgemin_hf.pruning.saliency import Loss


@contextmanager
def without_layer(model: PreTrainedModel, layer: int) -> Iterator[None]:
    """Make a model compute as if a layer, numbered from 0, were not there."""
    encoder, depth = Encoder(model), model.config.num_hidden_layers
    *parents, name = encoder.family.layers.split(".")
    parent = attrgetter(".".join(parents))(encoder.base) if parents else encoder.base
    modules = getattr(parent, name)
    setattr(parent, name, nn.ModuleList(module for index, module in enumerate(modules) if index != layer))
    model.config.num_hidden_layers = depth - 1
    try:
        yield
    finally:
        setattr(parent, name, modules)
        model.config.num_hidden_layers = depth


@torch.no_grad()
def losses_without(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], loss_of: Loss) -> Tensor:
    """Measure the loss without each layer in turn.

    Args:
        model: The model; set to evaluation mode.
        batches: Batches of its inputs.
        loss_of: Computes the loss of a batch.

    Returns:
        For each layer the mean loss over the batches without it, (layers,), float64.
    """
    was_training = model.training
    model.eval()
    losses = torch.zeros(model.config.num_hidden_layers, dtype=torch.float64)
    try:
        for layer in range(len(losses)):
            with without_layer(model, layer):
                losses[layer] = sum(loss_of(batch).double().cpu() for batch in batches) / len(batches)
    finally:
        model.train(was_training)
    return losses


def remove_least_layers(
    model: PreTrainedModel, kept: int, batches: Sequence[Mapping[str, Tensor]], loss_of: Loss
) -> list[int]:
    """Remove layers in place, greedily, until `kept` are left.

    Returns:
        The first numbers, from 0, of the layers that are left.

    Raises:
        ValueError: If the model's family can't lose layers.
    """
    numbers = list(range(model.config.num_hidden_layers))
    if kept < len(numbers):
        check_prunable(model.config, layers=True)
    while len(numbers) > kept:
        least = int(losses_without(model, batches, loss_of).argmin())
        remove_layers(model, [layer for layer in range(len(numbers)) if layer != least])
        del numbers[least]
    return numbers
