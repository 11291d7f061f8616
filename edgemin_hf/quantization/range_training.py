"""What happens to input ranges while a model trains: they may be learned, and stay as they are in its last steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import fake_quantized_linears, widen_everywhere


@contextmanager
def learned_ranges(parts: Sequence[nn.Module]) -> Iterator[list[nn.Parameter]]:
    """Make the input ranges of fake-quantised linear layers learnable for a while.

    Ranges differ in size by orders of magnitude, and Adam's steps do not: so factors of the ranges are learned.

    Args:
        parts: The modules whose linear layers learn.

    Yields:
        For each layer its parameter `range_factors`. When they are done, the layers' buffers hold the learned ranges.
    """
    linears = list({id(linear): linear for part in parts for linear in fake_quantized_linears(part)}.values())
    factors = [nn.Parameter(torch.ones(2, device=linear.weight.device)) for linear in linears]
    for linear, own in zip(linears, factors, strict=True):
        linear.range_factors = own
    try:
        yield factors
    finally:
        with torch.no_grad():
            for linear in linears:
                low, high = linear.input_range()
                linear.input_low.copy_(low)
                linear.input_high.copy_(high)
                linear.range_factors = None


def learn_ranges_apart(optimizer: torch.optim.Optimizer, model: nn.Module, learning_rate: float) -> None:
    """Move the factors of learned ranges, in a new optimizer, into a group with their own rate, without weight decay.

    Args:
        optimizer: An optimizer of all parameters of `model` that took no step yet.
        model: The model, in `learned_ranges`.
        learning_rate: The first or peak learning rate of the factors.
    """
    factors = [one.range_factors for one in fake_quantized_linears(model) if one.range_factors is not None]
    apart = set(map(id, factors))
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in apart]
    if factors:
        optimizer.add_param_group({"params": factors, "lr": learning_rate, "weight_decay": 0.0})


class RangeFreezer(TrainerCallback):
    """Keep the input ranges, observed or learned, as they are in the last share of the steps, also after a resume.

    Until then all processes have the same.
    """

    def __init__(self, config: QuantizationConfig) -> None:
        self.frozen_share = config.frozen_share

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Turn observation on or off as the step's number says."""
        observing = state.global_step < (1 - self.frozen_share) * state.max_steps
        for module in fake_quantized_linears(model):
            module.observing = observing

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Let all processes have seen what each of them has, as if one had seen all their rows."""
        if any(module.observing and module.range_factors is None for module in fake_quantized_linears(model)):
            widen_everywhere(model)

    on_step_end = on_substep_end

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs: object
    ) -> None:
        """Take the gradients of learned ranges away where they are to stay: an optimizer passes over such parameters.

        They do get gradients until here, since DistributedDataParallel may count on that.
        """
        for module in fake_quantized_linears(model):
            if module.range_factors is not None and not module.observing:
                module.range_factors.grad = None
