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
from edgemin_hf.utils.batches import count_rows
from edgemin_hf.utils.processes import check_same, summed


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
        batches: Batches of its inputs, this process's share.
        loss_of: Computes the loss of a batch, a mean over its examples.

    Returns:
        For each layer the mean loss without it, over the examples of all processes, (layers,), float64.

    Raises:
        ValueError: If a loss is not finite.
    """
    was_training = model.training
    model.eval()
    # The sum over examples of each, and last how many there are.
    totals = torch.zeros(model.config.num_hidden_layers + 1, dtype=torch.float64)
    sizes = [count_rows(batch) for batch in batches]
    totals[-1] = sum(sizes)
    try:
        for layer in range(len(totals) - 1):
            with without_layer(model, layer):
                for batch, size in zip(batches, sizes, strict=True):
                    totals[layer] += size * loss_of(batch).double().cpu()
    finally:
        model.train(was_training)
    totals = summed(totals)
    if not bool(totals.isfinite().all()):
        raise ValueError("layer_sparsity: above 0, but a loss without a layer is not finite; expected a finite loss")
    return totals[:-1] / totals[-1]


def remove_least_layers(
    model: PreTrainedModel, kept: int, batches: Sequence[Mapping[str, Tensor]], loss_of: Loss
) -> list[int]:
    """Remove layers in place, greedily, until `kept` are left, the same ones in all processes.

    Returns:
        The first numbers, from 0, of the layers that are left.

    Raises:
        ValueError: If the model's family can't lose layers, or as `losses_without`.
        RuntimeError: If processes chose differently.
    """
    numbers = list(range(model.config.num_hidden_layers))
    if kept < len(numbers):
        check_prunable(model.config, layers=True)
    while len(numbers) > kept:
        least = int(losses_without(model, batches, loss_of).argmin())
        check_same("layer_sparsity: the layer that goes", numbers[least])
        remove_layers(model, [layer for layer in range(len(numbers)) if layer != least])
        del numbers[least]
    return numbers
