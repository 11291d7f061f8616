"""Choosing heads and feed-forward neurons by saliency: settings, scores and selection.

The saliency of a unit is the first-order estimate of what its removal costs: |a . dL/da| for its activation a, one
example at a time, summed over examples (Michel et al. 2019, arXiv 1905.10650, section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.encoder import Encoder
from edgemin_hf.surgery import Selection, check_prunable

_KERNEL_WIDTH = 32
"""FFN widths are rounded to a multiple of this, which vectorised kernels like."""


@dataclass
class PruningConfig:
    """Settings of structured pruning. Every layer loses the same number of heads and of neurons.

    Attributes:
        head_sparsity: Share of each layer's heads to remove, 0 to below 1; at least one head stays.
        ffn_sparsity: Share of each layer's feed-forward neurons to remove, 0 to below 1; what stays is rounded to a
            multiple of 32 where the width is one.
        saliency: "taylor", or "random": a control that removes as many units by chance.
        saliency_examples: Number of training examples that the saliency is measured on.
        pruning_seed: Seed of the random control.
    """

    head_sparsity: float = 0.0
    ffn_sparsity: float = 0.0
    saliency: Literal["taylor", "random"] = "taylor"
    saliency_examples: int = 1024
    pruning_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("head_sparsity", "ffn_sparsity"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 0 to below 1")
        if self.saliency not in ("taylor", "random"):
            raise ValueError(f"saliency: {self.saliency}; allowed: taylor, random")
        if self.saliency_examples < 1:
            raise ValueError(f"saliency_examples: {self.saliency_examples}; allowed: 1 or more")

    def kept_heads(self, heads: int) -> int:
        """Returns how many of a layer's heads stay."""
        return max(1, round(heads * (1 - self.head_sparsity)))

    def kept_neurons(self, width: int) -> int:
        """Returns how many of a layer's feed-forward neurons stay."""
        step = _KERNEL_WIDTH if width % _KERNEL_WIDTH == 0 else 1
        return max(step, step * round(width * (1 - self.ffn_sparsity) / step))


Saliency = list[tuple[Tensor, Tensor]]
"""For each layer the scores of its heads and of its feed-forward neurons, float64."""


def taylor_saliency(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
) -> Saliency:
    """Measures the saliency of every head and feed-forward neuron.

    Args:
        model: The model; set to evaluation mode, so that dropout adds no noise. Its gradients are cleared.
        batches: Batches of its inputs.
        loss_of: Computes the loss of a batch, a mean over its examples.

    Returns:
        The scores, higher where removal costs more.

    Raises:
        ValueError: If the loss does not depend on some layer's units, which would then be chosen arbitrarily.
    """
    encoder = Encoder(model)
    scores: Saliency = [
        (torch.zeros(layer.num_heads, dtype=torch.float64), torch.zeros(layer.num_neurons, dtype=torch.float64))
        for layer in encoder.layers
    ]

    def watch(total: Tensor) -> Callable[[Any, tuple[Tensor, ...]], None]:
        def before_forward(_module: Any, args: tuple[Tensor, ...]) -> None:
            activation = args[0]

            def on_gradient(gradient: Tensor) -> None:
                # The loss is a mean over examples: times their number, it is each example's own gradient.
                products = (activation.detach() * gradient).double().sum(dim=1) * len(gradient)
                total.add_(products.unflatten(-1, (len(total), -1)).sum(-1).abs().sum(0).cpu())

            activation.register_hook(on_gradient)

        return before_forward

    handles = [
        module.register_forward_pre_hook(watch(total))
        for layer, totals in zip(encoder.layers, scores, strict=True)
        for module, total in zip((layer.attention_output, layer.ffn_out), totals, strict=True)
    ]
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            loss_of(batch).backward()
            model.zero_grad()
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    for number, totals in enumerate(scores, start=1):
        if not all(bool(total.any()) for total in totals):
            raise ValueError(
                f"saliency: taylor, but the loss does not reach layer {number}; allowed: a loss of the model's output "
                "beside it, such as task distillation, or random"
            )
    return scores


def random_saliency(model: PreTrainedModel, seed: int) -> Saliency:
    """Draws a score for every head and neuron: the control that any saliency has to beat."""
    generator = torch.Generator().manual_seed(seed)

    def draw(units: int) -> Tensor:
        return torch.rand(units, generator=generator, dtype=torch.float64)

    return [(draw(layer.num_heads), draw(layer.num_neurons)) for layer in Encoder(model).layers]


def select(model: PreTrainedModel, saliency: Saliency, config: PruningConfig) -> Selection:
    """Selects, layer by layer, the heads and neurons that stay: those of the highest saliency, in their old order.

    Raises:
        ValueError: If the model's family can't lose what `config` asks for.
    """
    check_prunable(model.config, heads=config.head_sparsity > 0)

    def top(scores: Tensor, count: int) -> list[int]:
        return sorted(scores.topk(count).indices.tolist())

    return Selection(
        heads=[top(heads, config.kept_heads(len(heads))) for heads, _ in saliency],
        neurons=[top(neurons, config.kept_neurons(len(neurons))) for _, neurons in saliency],
    )
