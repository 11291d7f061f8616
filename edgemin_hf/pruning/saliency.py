"""What removing a unit costs: the saliency of heads and feed-forward neurons.

Saliencies are sums over examples of what a unit adds to the example's own loss: the size of a batch, its division into
parts or over processes, accumulation, clipping and the scale of a loss change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.pruning.gradients import HEADS, NEURONS, ExampleTerms, MaskGradients, Terms, WeightProducts
from edgemin_hf.utils.batches import count_rows
from edgemin_hf.utils.processes import joined, summed

Loss = Callable[[Mapping[str, Tensor]], Tensor]
Batches = Iterable[Mapping[str, Tensor]]


@dataclass
class Saliency:
    """Score of a model's units, higher where removal costs more.

    Attributes:
        heads: For each layer the scores of its heads, (heads,), float64.
        neurons: Likewise of its feed-forward neurons.
        gradients: For each layer the gradients of its heads' and its neurons' masks, (examples, units), float32; None
            where the scores are all that is known.

    Example:
        >>> import torch
        >>> from edgemin_hf.pruning import Saliency
        >>> saliency = Saliency(heads=[torch.rand(4) for _ in range(2)], neurons=[torch.rand(64) for _ in range(2)])
        >>> [len(scores) for scores in saliency.heads]
        [4, 4]
    """

    heads: list[Tensor]
    neurons: list[Tensor]
    gradients: list[tuple[Tensor, Tensor]] | None = field(default=None, repr=False)


def taylor_saliency(model: PreTrainedModel, batches: Batches, loss_of: Loss) -> Saliency:
    """Measure sum |dL/dm| over examples (Michel et al. 2019, arXiv 1905.10650, section 4.1).

    Args:
        model: The model; set to evaluation mode, so that dropout adds no noise. Its gradients are cleared.
        batches: Batches of its inputs, texts along the first dimension and tokens along the second: this process's
            share. How the texts are divided into batches, and over processes, changes nothing.
        loss_of: Computes the loss of a batch, a mean over its examples.

    Returns:
        The scores over the examples of all processes.

    Raises:
        ValueError: If the loss does not depend on some layer's units, which would then be chosen arbitrarily, or has
            gradients that are not finite.
    """
    return _measure(model, batches, loss_of, "taylor")


def weight_saliency(model: PreTrainedModel, batches: Batches, loss_of: Loss) -> Saliency:
    """Measure |w . dL/dw|, summed over a unit's weights and over examples (ROSITA, Liu et al. 2021, arXiv 2103.11367).

    Args:
        model: As `taylor_saliency`.
        batches: As `taylor_saliency`.
        loss_of: As `taylor_saliency`.

    Returns:
        The scores.

    Raises:
        ValueError: As `taylor_saliency`.
    """
    return _measure(model, batches, loss_of, "taylor_weights")


def fisher_saliency(model: PreTrainedModel, batches: Batches, loss_of: Loss) -> Saliency:
    """Measure sum (dL/dm)^2 over examples, the diagonal of the empirical Fisher information of the masks.

    As Kwon et al. 2022 (arXiv 2204.09656, section 4.1); the gradients are kept, for products of two units' ones.

    Args:
        model: As `taylor_saliency`.
        batches: As `taylor_saliency`.
        loss_of: As `taylor_saliency`.

    Returns:
        The scores with their gradients.

    Raises:
        ValueError: As `taylor_saliency`.
    """
    found: list[Terms] = []
    totals = _measure(model, batches, loss_of, "fisher", found.append)

    def gradients(layer: int, kind: int, scores: Tensor) -> Tensor:
        rows = [terms[layer, kind].float() for terms in found if (layer, kind) in terms]
        return joined(torch.cat([torch.zeros(0, len(scores)), *rows]))

    totals.gradients = [
        (gradients(layer, HEADS, heads), gradients(layer, NEURONS, neurons))
        for layer, (heads, neurons) in enumerate(zip(totals.heads, totals.neurons, strict=True))
    ]
    return totals


MEASURES: dict[str, Callable[[PreTrainedModel, Batches, Loss], Saliency]] = {
    "taylor": taylor_saliency,
    "taylor_weights": weight_saliency,
    "fisher": fisher_saliency,
}
"""The saliencies that need batches, by their names in `PruningConfig`."""


def terms_of(model: PreTrainedModel, saliency: str) -> ExampleTerms:
    """Return what collects the terms that one of `MEASURES` adds up."""
    return WeightProducts(model) if saliency == "taylor_weights" else MaskGradients(model)


def add_terms(totals: Saliency, terms: Terms, saliency: str) -> None:
    """Add the terms of some examples, as one of `MEASURES` does, to scores in place."""
    for (layer, kind), values in terms.items():
        amounts = values.square() if saliency == "fisher" else values.abs()
        (totals.heads, totals.neurons)[kind][layer] += amounts.sum(0)


def random_saliency(model: PreTrainedModel, seed: int) -> Saliency:
    """Draw a score for every head and neuron: the control that any saliency has to beat."""
    generator = torch.Generator().manual_seed(seed)
    scores = no_scores(model)
    for heads, neurons in zip(scores.heads, scores.neurons, strict=True):
        heads.copy_(torch.rand(len(heads), generator=generator, dtype=torch.float64))
        neurons.copy_(torch.rand(len(neurons), generator=generator, dtype=torch.float64))
    return scores


def no_scores(model: PreTrainedModel) -> Saliency:
    """Return a score of 0 for every unit."""
    blocks = Encoder(model).blocks
    return Saliency(
        [torch.zeros(block.num_heads, dtype=torch.float64) for block in blocks],
        [torch.zeros(block.num_neurons, dtype=torch.float64) for block in blocks],
    )


def over_processes(scores: Saliency, name: str) -> Saliency:
    """Return scores summed over all processes.

    Raises:
        ValueError: If the loss does not reach a layer, or a score is not finite; all processes raise it.
    """
    total = Saliency(*([summed(score) for score in kind] for kind in (scores.heads, scores.neurons)))
    for number, layer in enumerate(zip(total.heads, total.neurons, strict=True), start=1):
        if not all(bool(score.isfinite().all()) for score in layer):
            raise ValueError(f"saliency: {name}, but gradients are not finite; expected a finite loss in every batch")
        if not all(bool(score.any()) for score in layer):
            raise ValueError(
                f"saliency: {name}, but the loss does not reach layer {number}; allowed: a loss of the model's output "
                "beside it, such as task distillation, or random"
            )
    return total


def _measure(
    model: PreTrainedModel,
    batches: Batches,
    loss_of: Loss,
    saliency: str,
    keep: Callable[[Terms], None] = lambda terms: None,
) -> Saliency:
    """Run each batch forward and backward, in evaluation mode, add the terms of its examples, and `keep` them."""
    was_training, collector, totals = model.training, terms_of(model, saliency), no_scores(model)
    model.eval()
    try:
        with collector.collected():
            for batch in batches:
                loss_of(batch).backward()
                terms = collector.take(count_rows(batch))
                model.zero_grad()
                if terms is None:
                    totals.heads[0].fill_(torch.nan)  # so that all processes learn of it
                    break
                add_terms(totals, terms, saliency)
                keep(terms)
    finally:
        model.train(was_training)
    return over_processes(totals, saliency)
