"""Running a few layers of a model alone, on hidden states that were kept, without calling them by hand.

The model's own forward runs: it makes masks and position biases as its family does. The layers before give back what
was kept instead of computing, and the pass ends after the last layer that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder


class _Reached(Exception):  # noqa: N818 - no error: everything wanted is there
    """End a forward pass whose remaining layers nobody reads."""


class PartialForward:
    """A model whose layers can be run from kept hidden states.

    Args:
        model: The model, in evaluation mode.
        batch: Inputs that it is run on once, to see what its layers return.
    """

    def __init__(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> None:
        self.model = model
        self.encoder = Encoder(model)
        self.depth: int = model.config.num_hidden_layers
        self._returned = self._observe(batch)

    @staticmethod
    def parts_of(encoder: Encoder, layer: int) -> list[nn.Module]:
        """Return the modules that make a layer's output: the layer, and what ends it where something does."""
        end = encoder.hook_point(Activation(layer, "output")).module
        if layer == EMBEDDINGS:
            return [end]
        module = encoder.layers[layer].module
        return [module] if module is end else [module, end]

    def run(self, batch: Mapping[str, Tensor], hidden: Tensor | None, start: int, end: int) -> Tensor:
        """Run layers `start` to `end`, without `end`, with gradients where they are on.

        Args:
            batch: The model's inputs, for masks and positions.
            hidden: Hidden states (batch, length, width) after layer `start` - 1; None, with `start` 0, begins with the
                inputs themselves.
            start: The first layer that runs.
            end: The layer before which the pass ends; depth + 1 runs the head too.

        Returns:
            The hidden states (batch, length, width), or the logits.
        """
        with self._skipped(hidden, start):
            if end > self.depth:
                return self.model(**batch).logits
            return self._until(end - 1, batch)

    def _until(self, layer: int, batch: Mapping[str, Tensor]) -> Tensor:
        hook_point = self.encoder.hook_point(Activation(layer, "output"))
        calls = count()
        reached: list[Tensor] = []

        def stop(_module: nn.Module, _args: Any, output: Any) -> None:
            if next(calls) == hook_point.call:
                reached.append(output[0] if isinstance(output, tuple) else output)
                raise _Reached

        handle = hook_point.module.register_forward_hook(stop)
        try:
            self.model(**batch)
        except _Reached:
            pass
        finally:
            handle.remove()
        return reached[0]

    @contextmanager
    def _skipped(self, hidden: Tensor | None, layers: int) -> Iterator[None]:
        """Let the first layers return `hidden`, in the form in which each returns its own."""
        skipped = {part for layer in range(layers) for part in self.parts_of(self.encoder, layer)}
        for part in skipped:
            part.forward = _giving(self._returned[part], hidden)
        try:
            yield
        finally:
            for part in skipped:
                del part.forward

    @torch.no_grad()
    def _observe(self, batch: Mapping[str, Tensor]) -> dict[nn.Module, int | None]:
        """Return the length of the tuple that each part of a layer returns; None where it returns a tensor."""
        seen: dict[nn.Module, int | None] = {}

        def see(module: nn.Module, _args: Any, output: Any) -> None:
            seen[module] = len(output) if isinstance(output, tuple) else None

        parts = {part for layer in range(self.depth) for part in self.parts_of(self.encoder, layer)}
        handles = [part.register_forward_hook(see) for part in parts]
        try:
            self.model(**batch)
        finally:
            for handle in handles:
                handle.remove()
        return seen


def _giving(length: int | None, hidden: Tensor | None) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: hidden if length is None else (hidden, *[None] * (length - 1))
