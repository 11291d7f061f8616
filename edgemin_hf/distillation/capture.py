"""Recording tensors inside an encoder while it runs, and running it no further than the last of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.encoder import Encoder, Tap


@dataclass
class Recording:
    """What an objective sees of one forward pass.

    Attributes:
        taps: The recorded tensors, each (batch, length, width).
        logits: The model's logits (batch, labels); None where no objective asked for them.
    """

    taps: dict[Tap, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


class Objective(Protocol):
    """What a student is trained for: the tensors that it needs, and the named loss terms that it makes of them."""

    student_taps: Sequence[Tap]
    teacher_taps: Sequence[Tap]
    needs_student_logits: bool
    needs_teacher_logits: bool

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weighted loss terms, each a scalar: a mean over the examples of the batch."""
        ...


class _Recorded(Exception):  # noqa: N818 - no error: everything wanted is there
    """Ends a forward pass whose remaining layers nobody reads."""


@contextmanager
def _stopping_forward(model: nn.Module, outputs: dict[Tap, Tensor]) -> Iterator[None]:
    """Makes `model.forward` return `outputs` when a hook ends it early.

    The end is caught inside the model, not around the call, so that DistributedDataParallel around it sees a forward
    pass like any other and finds in its outputs which parameters will get a gradient.
    """
    forward: Callable[..., Any] = model.forward
    patched_before = model.__dict__.get("forward")

    @functools.wraps(forward)
    def stopping(*args: Any, **kwargs: Any) -> Any:
        try:
            return forward(*args, **kwargs)
        except _Recorded:
            return outputs

    model.forward = stopping
    try:
        yield
    finally:
        if patched_before is None:
            del model.forward
        else:
            model.forward = patched_before


def record(
    run: nn.Module, model: PreTrainedModel, taps: Collection[Tap], logits: bool, inputs: Mapping[str, Tensor]
) -> Recording:
    """Runs a model once and records tensors with forward hooks.

    Without `logits` the pass ends at the last tap, so that no layer runs whose output nobody reads. Nothing runs at
    all where nothing is asked for.

    Args:
        run: What to call: `model` itself, or its wrapper (DistributedDataParallel).
        model: The model inside.
        taps: The tensors to record.
        logits: Whether the logits are wanted.
        inputs: The model's inputs, labels left out.

    Returns:
        The recorded tensors, with their autograd history where gradients are on.
    """
    recording = Recording()
    if not taps and not logits:
        return recording
    wanted = frozenset(taps)

    def hook(tap: Tap) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(_module: nn.Module, _args: Any, output: Tensor) -> None:
            recording.taps[tap] = output
            if not logits and len(recording.taps) == len(wanted):
                raise _Recorded

        return keep

    encoder = Encoder(model)
    handles = [encoder.module(tap).register_forward_hook(hook(tap)) for tap in wanted]
    try:
        if logits:
            recording.logits = getattr(run(**inputs), "logits", None)
        else:
            with _stopping_forward(model, recording.taps):
                run(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return recording


def accepted(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns those inputs that a model's forward names, labels left out: losses are the objectives' business."""
    names = forward_names(type(model))
    return {name: value for name, value in inputs.items() if name in names and name != "labels"}


def forward_names(model_class: type[PreTrainedModel]) -> frozenset[str]:
    """Returns the names of the arguments of a model's forward."""
    return frozenset(inspect.signature(model_class.forward).parameters)
