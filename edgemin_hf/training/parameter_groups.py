"""Learning rates of parts of a model: groups of an optimizer's parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.weights import is_head


def learning_rates(
    model: PreTrainedModel, learning_rate: float, head: float | None = None, layer_decay: float = 1.0
) -> dict[str, float]:
    """Return the learning rate of each parameter, by name.

    A layer's is multiplied by `layer_decay` for each layer above it, so that what lies further from the task moves
    less; embeddings have the lowest (ELECTRA, arXiv 2003.10555). Layers that share weights are one.

    Args:
        model: The model.
        learning_rate: That of the last layer.
        head: That of the head; None takes `learning_rate`.
        layer_decay: What each layer further down multiplies it by.
    """
    rates = {name: learning_rate * layer_decay**above for name, above in Encoder(model).layers_above().items()}
    return rates if head is None else {name: head if is_head(model, name) else rates[name] for name in rates}


def split_by_rate(optimizer: torch.optim.Optimizer, model: PreTrainedModel, rates: Mapping[str, float]) -> None:
    """Split the groups of a new optimizer by learning rate; all else of them, such as weight decay, stays as it is.

    Args:
        optimizer: The optimizer, before its first step and before its schedule is made.
        model: The model.
        rates: First learning rate of each parameter, by name, which the schedule scales like the others.
    """
    rate_of = {id(parameter): rates[name] for name, parameter in model.named_parameters()}
    for group in list(optimizer.param_groups):
        parts: dict[float, list[torch.nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(rate_of[id(parameter)], []).append(parameter)
        first, *others = parts.items() or [(group["lr"], group["params"])]
        group["lr"], group["params"] = first  # before others are added: no parameter may be in two groups
        for rate, parameters in others:
            optimizer.add_param_group({**group, "params": parameters, "lr": rate})
