"""Recording tensors inside an encoder while it runs, and running it no further than the last of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Activation, Encoder


@dataclass
class Recording:
    """What an objective sees of one forward pass.

    Attributes:
        activations: The recorded tensors, each (batch, length, width).
        logits: The model's logits, (batch, labels) or (batch, length, vocabulary); None where nobody asked for them.
    """

    activations: dict[Activation, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


class _Recorded(Exception):  # noqa: N818 - no error: everything wanted is there
    """End a forward pass whose remaining layers nobody reads."""


def record(
    model: PreTrainedModel,
    activations: Collection[Activation],
    logits: bool,
    inputs: Mapping[str, Tensor],
    forward: Callable[..., Any] | None = None,
    to_the_end: bool = False,
) -> Recording:
    """Run a model once and record tensors with hooks.

    Without `logits` the pass ends at the last activation, so that no layer runs whose output nobody reads. Nothing runs
    at all where nothing is asked for.

    Args:
        model: The model.
        activations: The tensors to record.
        logits: Whether the logits are wanted.
        inputs: The model's inputs, labels left out.
        forward: What to call instead of the model.
        to_the_end: Whether to run all layers in any case: for wrappers around layers that count on it.

    Returns:
        The recorded tensors, with their autograd history where gradients are on.
    """
    recording = Recording()
    if not activations and not logits:
        return recording
    wanted = frozenset(activations)
    mask = inputs.get("attention_mask")

    def keep(activation: Activation, tensor: Tensor) -> None:
        recording.activations[activation] = _padded(tensor, mask)
        if not logits and not to_the_end and len(recording.activations) == len(wanted):
            raise _Recorded

    encoder = Encoder(model)
    handles = [_hook(encoder, activation, keep) for activation in wanted]
    try:
        output = (forward or model)(**inputs)
        recording.logits = getattr(output, "logits", None) if logits else None
    except _Recorded:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return recording


def _hook(encoder: Encoder, activation: Activation, keep: Callable[[Activation, Tensor], None]) -> RemovableHandle:
    module, call, side, read = encoder.hook_point(activation)
    calls = count()

    def see(passing: Any) -> None:
        if next(calls) == call:
            keep(activation, read(passing[0] if isinstance(passing, tuple) else passing))

    if side == "input":
        return module.register_forward_pre_hook(lambda _module, args: see(args))
    return module.register_forward_hook(lambda _module, _args, output: see(output))


def _padded(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Put padding back where a model computes real tokens alone: (tokens, width) -> (batch, length, width)."""
    if tensor.ndim == 3 or mask is None:
        return tensor
    padded = tensor.new_zeros(*mask.shape, tensor.shape[-1])
    return padded.masked_scatter(mask.bool()[..., None], tensor)


@contextmanager
def replaced_forward(model: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Put another forward instead of a model's, for the model and for every wrapper around it."""
    before = model.__dict__.get("forward")
    model.forward = forward
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before


def filter_forward_inputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those inputs that a model's forward names, labels left out: losses are the objectives' business."""
    names = forward_names(type(model))
    return {name: value for name, value in inputs.items() if name in names and name != "labels"}


def forward_names(model_class: type[PreTrainedModel]) -> frozenset[str]:
    """Return the names of the arguments of a model's forward."""
    return frozenset(inspect.signature(model_class.forward).parameters)
