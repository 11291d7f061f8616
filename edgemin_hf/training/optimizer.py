"""Learning rates of parts of a model."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from edgemin_hf.modeling.weights import is_head


def learn_head_apart(optimizer: torch.optim.Optimizer, model: PreTrainedModel, learning_rate: float) -> None:
    """Give a model's head a learning rate of its own in a new optimizer; all else of its groups stays as it is.

    Args:
        optimizer: The optimizer, before its first step and before its schedule is made.
        model: The model.
        learning_rate: The head's first learning rate, which the schedule scales like the others.
    """
    head = {id(parameter) for name, parameter in model.named_parameters() if is_head(model, name)}
    for group in list(optimizer.param_groups):
        apart = [parameter for parameter in group["params"] if id(parameter) in head]
        if apart:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
            optimizer.add_param_group({**group, "params": apart, "lr": learning_rate})
