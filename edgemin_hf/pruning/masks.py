"""Masks on a model's units: it computes what it would compute without those that are masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def masked(masks: Iterable[tuple[nn.Module, Tensor]]) -> Iterator[None]:
    """Multiply the inputs of linear layers with masks, at every forward pass inside.

    Args:
        masks: Each layer with its mask (units,): of an attention's output matrix one value a head, of the second
            feed-forward matrix one a neuron. A mask that is changed in place counts from the next pass on.
    """
    handles = [linear.register_forward_pre_hook(_multiply(mask)) for linear, mask in masks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _multiply(mask: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Any, ...]]:
    def before_forward(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Any, ...]:
        wide = mask.to(args[0]).repeat_interleave(args[0].shape[-1] // len(mask))
        return (args[0] * wide, *args[1:])

    return before_forward
