"""Masks on a model's units: it computes what it would compute without those that are masked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from edgemin_hf.modeling.hooks import Inputs, PreHook, hooked


@contextmanager
def masked(masks: Iterable[tuple[nn.Module, Tensor]]) -> Iterator[None]:
    """Multiply the inputs of linear layers with masks, at every forward pass inside.

    Args:
        masks: Each layer with its mask (units,): of an attention's output matrix one value a head, of the second
            feed-forward matrix one a neuron. A mask that is changed in place counts from the next pass on.
    """
    with hooked(before=[(linear, _multiply(mask)) for linear, mask in masks]):
        yield


def _multiply(mask: Tensor) -> PreHook:
    def before_forward(_module: nn.Module, args: Inputs) -> Inputs:
        wide = mask.to(args[0]).repeat_interleave(args[0].shape[-1] // len(mask))
        return (args[0] * wide, *args[1:])

    return before_forward
