"""What every unit adds to an example's own loss, to first order: collected at the backward passes of a model.

A pass is split by nothing here: a batch may go through in parts, a layer may run several times in a pass, and gradients
may be scaled. What comes out is of one example's own loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.hooks import Inputs, Output, PostHook, PreHook, hooked

HEADS, NEURONS = 0, 1
"""The kinds of units."""
_Key = tuple[int, int]
"""A layer's number and a kind."""
Terms = dict[_Key, Tensor]
"""Of each layer and kind what its units add, (examples, units), float64 on the CPU."""
_Hooks = tuple[list[tuple[nn.Module, PreHook]], list[tuple[nn.Module, PostHook]]]


@dataclass
class _Pass:
    """One forward pass of the model, over the examples of a batch or of a part of it, and what came back of it."""

    calls: Counter[nn.Module] = field(default_factory=Counter)
    waiting: dict[nn.Module, list[tuple[Tensor, Tensor]]] = field(default_factory=lambda: defaultdict(list))
    terms: Terms = field(default_factory=dict)

    def add(self, key: _Key, terms: Tensor) -> None:
        self.terms[key] = self.terms[key] + terms if key in self.terms else terms


class ExampleTerms(ABC):
    """Collect a term of each unit and example while the model runs forward and backward.

    Args:
        model: The model; the loss must be a mean over examples, times anything.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._encoder = Encoder(model)
        self._passes: list[_Pass] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collect at the passes inside the block."""
        layers = [self._hooks_of(number, block) for number, block in enumerate(self._encoder.blocks)]
        before = [(self._encoder.base.embeddings, self._begin), *chain.from_iterable(before for before, _ in layers)]
        with hooked(before=before, after=list(chain.from_iterable(after for _, after in layers))):
            yield
        self._passes.clear()

    def take(self, factor: float) -> Terms | None:
        """Return what the backward passes since the last call brought, and forget it.

        Args:
            factor: What makes the gradient an example's own: the examples that the loss is a mean over, by what the
                loss was multiplied with before the backward pass.

        Returns:
            The terms; None where one is not finite, as where fp16 overflowed and the optimizer passes over the step.
        """
        for one in self._passes:
            self._finish(one)
        found = [one.terms for one in self._passes if one.terms]
        self._passes.clear()
        keys = {key for terms in found for key in terms}
        joined = {key: factor * torch.cat([terms[key] for terms in found if key in terms]).cpu() for key in keys}
        return joined if all(bool(terms.isfinite().all()) for terms in joined.values()) else None

    def _begin(self, _module: nn.Module, _args: Inputs) -> None:
        if torch.is_grad_enabled():
            self._passes.append(_Pass())

    @abstractmethod
    def _hooks_of(self, number: int, block: Layer) -> _Hooks:
        """Return what is hooked before modules of a layer, and after them."""

    def _finish(self, one: _Pass) -> None:  # noqa: B027 - of masks nothing waits
        """Make terms of what still waits."""


class MaskGradients(ExampleTerms):
    """The gradients of masks: give every head and neuron a mask m = 1 that its activation is multiplied with.

    dL/dm of an example is the activation times its gradient, summed over positions (and over the dimensions of a head,
    and over the layers that share the unit).
    """

    def _hooks_of(self, number: int, block: Layer) -> _Hooks:
        parts = (block.attention_output, block.num_heads), (block.ffn_out, block.num_neurons)
        return [(linear, self._on_input((number, kind), units)) for kind, (linear, units) in enumerate(parts)], []

    def _on_input(self, key: _Key, units: int) -> PreHook:
        def before_forward(_module: nn.Module, args: Inputs) -> None:
            # Detached: a hook that held the tensor it hangs on would keep the whole graph alive, for ever.
            values = args[0].detach()
            if args[0].requires_grad:
                _check_batch(values)
                one = self._passes[-1]

                def on_gradient(gradient: Tensor) -> None:
                    products = _precise(values) * _precise(gradient)
                    one.add(key, _summed(products, 1).unflatten(-1, (units, -1)).sum(-1))

                args[0].register_hook(on_gradient)

        return before_forward


class WeightProducts(ExampleTerms):
    """The sums of |w . dL/dw| over the weights of a unit (ROSITA, Liu et al. 2021, arXiv 2103.11367).

    The weights of a head are its columns of the attention's output matrix; those of a neuron its row of the first
    feed-forward matrix (and that of its gate) and its column of the second.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._places: dict[nn.Module, tuple[_Key, int, int]] = {}

    def _hooks_of(self, number: int, block: Layer) -> _Hooks:
        heads, neurons = block.num_heads, block.num_neurons
        places = (
            (block.attention_output, HEADS, 0, heads),
            (block.ffn_in, NEURONS, 1, neurons),
            (block.ffn_out, NEURONS, 0, neurons),
        )
        for linear, kind, dim, units in places:
            self._places[linear] = ((number, kind), dim, units)
        return [], [(linear, self._on_output) for linear, *_ in places]

    def _on_output(self, linear: nn.Linear, args: Inputs, output: Output) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        # What the matrix is multiplied with: a fake-quantised layer rounds its input.
        rounded = getattr(linear, "quantized_input", None)
        with torch.no_grad():
            values = args[0].detach() if rounded is None else rounded(args[0].detach())
        _check_batch(values)
        one = self._passes[-1]
        one.calls[linear] += 1

        def on_gradient(gradient: Tensor) -> None:
            runs = one.waiting[linear]
            runs.append((values, gradient))
            if len(runs) == one.calls[linear]:  # else the other layers that share it are still to come
                self._multiply(one, linear)

        output.register_hook(on_gradient)

    @torch.no_grad()
    def _multiply(self, one: _Pass, linear: nn.Linear) -> None:
        key, dim, units = self._places[linear]
        runs = [(_precise(values), _precise(gradient)) for values, gradient in one.waiting.pop(linear)]
        rows = []
        for example in range(len(runs[0][0])):  # one at a time: their gradients are as large as the matrix
            own = sum(gradient[example].T @ values[example] for values, gradient in runs)
            amounts = _summed((linear.weight * own).abs(), dim)
            # Neurons in turn, and their gates where there are some; of a head its columns.
            rows.append(amounts.view(units, -1).sum(1) if dim == 0 else amounts.view(-1, units).sum(0))
        one.add(key, torch.stack(rows))

    def _finish(self, one: _Pass) -> None:
        for linear in list(one.waiting):
            self._multiply(one, linear)


def _check_batch(values: Tensor) -> None:
    if values.ndim != 3:
        raise ValueError(
            "saliency: of a model that runs examples without padding one after another; expected a padded batch, as of "
            "attn_implementation sdpa or eager"
        )


def _precise(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 at least: half precision overflows, and has no digits for what adds up."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _summed(products: Tensor, dim: int) -> Tensor:
    has_float64 = products.device.type != "mps"
    return products.sum(dim, dtype=torch.float64 if has_float64 else torch.float32)
