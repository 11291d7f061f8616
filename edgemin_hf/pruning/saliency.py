"""What removing a unit costs: the saliency of heads and feed-forward neurons.

Give every head and neuron a mask m = 1 that its activation is multiplied with. For one example, dL/dm is the
activation times its gradient, summed over positions (and over the dimensions of a head).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Inputs, PreHook, hooked

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


Receive = Callable[[int, int, Tensor], None]
"""Takes a layer's number, 0 for its heads or 1 for its neurons, and the gradients of their masks (batch, units)."""


@contextmanager
def mask_gradients(model: PreTrainedModel, receive: Receive) -> Iterator[None]:
    """Hand out, at every backward pass, the gradients of all masks: float64, of each example's own loss.

    The loss must be a mean over the examples of a forward pass. Where a layer runs several times (ALBERT's), each run
    counts as further examples.
    """

    def watch(layer: int, kind: int, units: int) -> PreHook:
        def before_forward(_module: nn.Module, args: Inputs) -> None:
            # Detached: a hook that held the tensor it hangs on would keep the whole graph alive, for ever.
            values = args[0].detach()

            def on_gradient(gradient: Tensor) -> None:
                # The loss is a mean over examples: times their number, it is each example's own gradient.
                products = (values * gradient).double().sum(dim=1) * len(gradient)
                receive(layer, kind, products.unflatten(-1, (units, -1)).sum(-1))

            if args[0].requires_grad:
                args[0].register_hook(on_gradient)

        return before_forward

    hooks = [
        (module, watch(number, kind, units))
        for number, block in enumerate(Encoder(model).blocks)
        for kind, (module, units) in enumerate(
            ((block.attention_output, block.num_heads), (block.ffn_out, block.num_neurons))
        )
    ]
    with hooked(before=hooks):
        yield


def taylor_saliency(model: PreTrainedModel, batches: Batches, loss_of: Loss) -> Saliency:
    """Measure sum |dL/dm| over examples (Michel et al. 2019, arXiv 1905.10650, section 4.1).

    Args:
        model: The model; set to evaluation mode, so that dropout adds no noise. Its gradients are cleared.
        batches: Batches of its inputs, texts along the first dimension and tokens along the second.
        loss_of: Computes the loss of a batch, a mean over its examples.

    Returns:
        The scores.

    Raises:
        ValueError: If the loss does not depend on some layer's units, which would then be chosen arbitrarily.
    """
    totals = no_scores(model)

    def add(layer: int, kind: int, gradients: Tensor) -> None:
        (totals.heads, totals.neurons)[kind][layer] += gradients.abs().sum(0).cpu()

    _backward(model, batches, loss_of, add)
    return _reached(totals, "taylor")


def weight_saliency(model: PreTrainedModel, batches: Batches, loss_of: Loss) -> Saliency:
    """Measure sum |w . dL/dw| over a unit's weights and over batches (ROSITA, Liu et al. 2021, arXiv 2103.11367).

    Args:
        model: As `taylor_saliency`.
        batches: As `taylor_saliency`.
        loss_of: As `taylor_saliency`.

    Returns:
        The scores.

    Raises:
        ValueError: As `taylor_saliency`.
    """
    totals = no_scores(model)
    _backward(model, batches, loss_of, None, lambda: add_weight_products(model, totals))
    return _reached(totals, "taylor_weights")


@torch.no_grad()
def add_weight_products(model: PreTrainedModel, totals: Saliency) -> None:
    """Add |w . dL/dw| of the gradients that a model holds to the scores of its units.

    The weights of a head are its columns of the attention's output matrix; those of a neuron its row of the first
    feed-forward matrix (and that of its gate) and its column of the second.
    """
    for index, block in enumerate(Encoder(model).blocks):
        if block.attention_output.weight.grad is None or block.ffn_out.weight.grad is None:
            continue
        output, first, second = (
            (linear.weight * linear.weight.grad).double().abs()
            for linear in (block.attention_output, block.ffn_in, block.ffn_out)
        )
        totals.heads[index] += output.sum(0).unflatten(0, (block.num_heads, -1)).sum(1).cpu()
        totals.neurons[index] += (first.sum(1).unflatten(0, (-1, block.num_neurons)).sum(0) + second.sum(0)).cpu()


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
    found: list[tuple[list[Tensor], list[Tensor]]] = [([], []) for _ in Encoder(model).blocks]
    _backward(
        model, batches, loss_of, lambda layer, kind, gradients: found[layer][kind].append(gradients.float().cpu())
    )
    if not all(heads and neurons for heads, neurons in found):
        return _reached(no_scores(model), "fisher")
    gradients = [(torch.cat(heads), torch.cat(neurons)) for heads, neurons in found]
    squares = [[g.double().square().sum(0) for g in kinds] for kinds in gradients]
    return _reached(Saliency([s[0] for s in squares], [s[1] for s in squares], gradients), "fisher")


MEASURES: dict[str, Callable[[PreTrainedModel, Batches, Loss], Saliency]] = {
    "taylor": taylor_saliency,
    "taylor_weights": weight_saliency,
    "fisher": fisher_saliency,
}
"""The saliencies that need batches, by their names in `PruningConfig`."""


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


def _backward(
    model: PreTrainedModel,
    batches: Batches,
    loss_of: Loss,
    receive: Receive | None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run each batch forward and backward, hand out mask gradients and, after each batch, call `after`."""
    was_training = model.training
    model.eval()
    try:
        with nullcontext() if receive is None else mask_gradients(model, receive):
            for batch in batches:
                loss_of(batch).backward()
                after()
                model.zero_grad()
    finally:
        model.train(was_training)


def _reached(scores: Saliency, name: str) -> Saliency:
    for number, totals in enumerate(zip(scores.heads, scores.neurons, strict=True), start=1):
        if not all(bool(total.any()) for total in totals):
            raise ValueError(
                f"saliency: {name}, but the loss does not reach layer {number}; allowed: a loss of the model's output "
                "beside it, such as task distillation, or random"
            )
    return scores
