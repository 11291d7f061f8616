"""Fitting a new head on frozen features before anything else moves: the LP of LP-FT (arXiv 2202.10054).

A random head sends the encoder gradients that mean nothing yet, and what the encoder knew is bent until the head has
learned. A head that is fitted first begins where a linear model of the same features ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.hooks import filter_forward_inputs, hooked
from edgemin_hf.modeling.weights import is_head

PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4)
"""Weights of the squared coefficients of scaled features, of which validation takes the best."""
_LEAST_DEVIATION = 1e-3
"""Of features, as a part of their size: what varies less is the rounding of float32, which tells nothing."""
_ITERATIONS = 100
_NO_LABEL = -100
"""The label of a token that does not count."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of logits (rows, labels) and labels: a mean over rows, such as a task's `hard_loss`."""
Features = tuple[Tensor, Tensor]
"""Features (rows, width), float32, and labels, on the CPU."""


def last_linear(model: PreTrainedModel) -> nn.Linear:
    """Return the layer of a model's head that gives the logits.

    Raises:
        ValueError: If there is none.
    """
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_head(model, name) and module.out_features == model.config.num_labels
    ]
    if not found or model is model.base_model:
        raise ValueError(f"model: {type(model).__name__}; expected: one whose head ends in a linear layer")
    return found[-1]


@torch.no_grad()
def frozen_features(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]]) -> Features:
    """Run a model without dropout and return what its last linear layer reads, with the labels.

    Of a model that answers for each token, with a label for each, the rows are the tokens whose label counts.

    Args:
        model: The model; it stays as it is.
        batches: Its inputs and "labels", on its device.
    """
    seen: list[Tensor] = []
    labels: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        with hooked(before=[(last_linear(model), lambda module, inputs: seen.append(inputs[0].float().cpu()))]):
            for batch in batches:
                model(**{k: v for k, v in filter_forward_inputs(model, batch).items() if k != "labels"})
                labels.append(batch["labels"].cpu())
                if seen[-1].shape[:-1] == labels[-1].shape and labels[-1].ndim == 2:
                    counts = labels[-1] != _NO_LABEL
                    seen[-1], labels[-1] = seen[-1][counts], labels[-1][counts]
    finally:
        model.train(training)
    return torch.cat(seen), torch.cat(labels)


def fit_linear(features: Tensor, labels: Tensor, loss: Loss, outputs: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Minimise loss(features W^T + b, labels) + penalty / 2 |W|^2 over scaled features, by L-BFGS.

    Features are centred, and divided by one number: each by its own deviation would blow up what hardly varies, and
    with such weights no quantised graph could answer.

    Args:
        features: (rows, width), float32.
        labels: What `loss` takes.
        loss: A mean over rows, convex in the logits.
        outputs: Number of logits.
        penalty: Weight of the squares.

    Returns:
        Weight (outputs, width) and bias (outputs,) for the features as they are.
    """
    mean = features.mean(0)
    rows = features - mean
    size, deviation = (some.square().mean().sqrt() for some in (features, rows))
    scale = torch.maximum(deviation, _LEAST_DEVIATION * size).clamp(min=torch.finfo(features.dtype).tiny)
    rows = rows / scale
    weight = torch.zeros(outputs, rows.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(rows @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    plain = weight.detach() / scale
    return plain, bias.detach() - plain @ mean


@torch.no_grad()
def fit_head(model: PreTrainedModel, train: Features, validation: Features, loss: Loss) -> float:
    """Fit the last linear layer of a model on frozen features; the penalty is the one that validation likes best.

    Args:
        model: The model, whose last layer is written to.
        train: Features and labels to fit on.
        validation: Those that choose.
        loss: The task's.

    Returns:
        The loss on the validation rows.
    """
    layer = last_linear(model)

    def fitted(penalty: float) -> tuple[float, tuple[Tensor, Tensor]]:
        weight, bias = fit_linear(*train, loss, layer.out_features, penalty)
        return loss(validation[0] @ weight.T + bias, validation[1]).item(), (weight, bias)

    best, (weight, bias) = min((fitted(penalty) for penalty in PENALTIES), key=lambda found: found[0])
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return best
