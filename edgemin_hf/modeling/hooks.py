"""Looking inside a model while it runs, ending a pass early, and beginning it at a later layer.

The model's own forward runs in every case: it makes masks and position biases as its family does. All that is put on a
model here (hooks, forwards) is taken off again, also where a pass fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.outputs import head_output
from edgemin_hf.modeling.tokenizers import model_inputs
from edgemin_hf.runtime.graph import TOKEN_TYPES

Inputs: TypeAlias = tuple[Tensor, ...]
"""The positional arguments of a module."""
Output: TypeAlias = Tensor | tuple[Tensor | None, ...]
"""What a layer or a part of one returns: its tensor alone or as the first of several."""
PreHook: TypeAlias = Callable[[nn.Module, Inputs], Inputs | None]
"""Run before a module: may return other arguments."""
PostHook: TypeAlias = Callable[[nn.Module, Inputs, Output], Output | None]
"""Run after a module: may return another output."""
Result = TypeVar("Result")


class _PassEnded(Exception):  # noqa: N818 - no error: everything wanted is there
    """End a forward pass whose remaining layers nobody reads."""


@contextmanager
def hooked(
    *, before: Iterable[tuple[nn.Module, PreHook]] = (), after: Iterable[tuple[nn.Module, PostHook]] = ()
) -> Iterator[None]:
    """Put hooks on modules, and take them off at the end of the block.

    Args:
        before: Modules and what is called with their inputs.
        after: Modules and what is called with their inputs and outputs.
    """
    with ExitStack() as stack:
        for module, pre_hook in before:
            stack.callback(module.register_forward_pre_hook(pre_hook).remove)
        for module, post_hook in after:
            stack.callback(module.register_forward_hook(post_hook).remove)
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Put another forward instead of a module's, for the module and for every wrapper around it."""
    before = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@contextmanager
def recorded(
    encoder: Encoder, activations: Iterable[Activation], *, end: bool = False
) -> Iterator[dict[Activation, Tensor]]:
    """Record tensors of one forward pass, which runs inside the block, as they are in the model.

    Args:
        encoder: The model.
        activations: The tensors to record.
        end: Whether to end the pass, and with it the block, at the last of them.

    Yields:
        The tensors, each with its autograd history where gradients are on; filled as the pass goes on.
    """
    found: dict[Activation, Tensor] = {}
    wanted = list(dict.fromkeys(activations))
    before: list[tuple[nn.Module, PreHook]] = []
    after: list[tuple[nn.Module, PostHook]] = []

    def watch(activation: Activation) -> None:
        module, call, side, read = encoder.hook_point(activation)
        calls = count()

        def keep(passing: Output) -> None:
            if next(calls) != call:
                return
            found[activation] = read(passing[0] if isinstance(passing, tuple) else passing)
            if end and len(found) == len(wanted):
                raise _PassEnded

        if side == "input":
            before.append((module, lambda _module, inputs: keep(inputs)))
        else:
            after.append((module, lambda _module, _inputs, output: keep(output)))

    for activation in wanted:
        watch(activation)
    with hooked(before=before, after=after):
        try:
            yield found
        except _PassEnded:
            if not end:  # it belongs to a recording around this one
                raise


@dataclass
class Recording:
    """What an objective sees of one forward pass.

    Attributes:
        activations: The recorded tensors, each (batch, length, width).
        logits: What the model's head gives, (batch, width) or (batch, length, width); None where nobody asked for it.

    Example:
        >>> import torch
        >>> from edgemin_hf.modeling import Activation, Recording
        >>> recording = Recording({Activation(0, "output"): torch.zeros(2, 5, 32)})
        >>> recording.activations[Activation(0, "output")].shape, recording.logits
        (torch.Size([2, 5, 32]), None)
    """

    activations: dict[Activation, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


def record(
    model: PreTrainedModel,
    activations: Collection[Activation],
    logits: bool,
    inputs: Mapping[str, Tensor],
    forward: Callable[..., Mapping[str, Tensor]] | None = None,
    to_the_end: bool = False,
) -> Recording:
    """Run a model once and record what an objective reads.

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

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.modeling import Activation, record
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model, inputs = BertModel(BertConfig(vocab_size=50, **shape)), {"input_ids": torch.tensor([[2, 7, 8, 3]])}
        >>> queries = Activation(1, "q")
        >>> record(model, [queries], logits=False, inputs=inputs).activations[queries].shape
        torch.Size([1, 4, 32])
    """
    recording = Recording()
    if not activations and not logits:
        return recording
    with recorded(Encoder(model), activations, end=not logits and not to_the_end) as found:
        output: Mapping[str, Tensor] = (forward or model)(**inputs)
        recording.logits = head_output(output) if logits else None
    mask = inputs.get("attention_mask")
    recording.activations = {activation: _padded(tensor, mask) for activation, tensor in found.items()}
    return recording


def _padded(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Put padding back where a model computes real tokens alone: (tokens, width) -> (batch, length, width)."""
    if tensor.ndim == 3 or mask is None:
        return tensor
    padded = tensor.new_zeros(*mask.shape, tensor.shape[-1])
    return padded.masked_scatter(mask.bool()[..., None], tensor)


class PartialForward:
    """A model whose layers can be run from kept hidden states.

    The layers before return what was kept instead of computing, and the pass ends after the last layer that is wanted.

    Args:
        model: The model, in evaluation mode.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.encoder = Encoder(model)
        self.depth: int = model.config.num_hidden_layers
        # The length of the tuple that each part of a layer returned when it ran; None where it returned a tensor.
        self._lengths: dict[nn.Module, int | None] = {}

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
            hidden: As `begun_at`.
            start: The first layer that runs.
            end: The layer before which the pass ends; depth + 1 runs the head too.

        Returns:
            The hidden states (batch, length, width), or the logits.

        Raises:
            ValueError: As `begun_at`.
        """
        with self.begun_at(start, hidden):
            if end > self.depth:
                logits = head_output(self.model(**batch))
                assert logits is not None  # noqa: S101 - the caller's: it has a head
                return logits
            last = Activation(end - 1, "output")
            with recorded(self.encoder, [last], end=True) as found:
                self.model(**batch)
        return found[last]

    def observe(self, run: Callable[[], Result]) -> tuple[Result, list[Tensor | None]]:
        """Keep the hidden states of a complete pass.

        Args:
            run: Runs the model once.

        Returns:
            What `run` returns; and what goes into each layer, and last into the head, (batch, length, width) each:
            into the first the inputs themselves, None.
        """
        outputs = [Activation(layer, "output") for layer in range(self.depth)]
        with self.begun_at(0, None), recorded(self.encoder, outputs) as found:
            result = run()
        return result, [None, *(found[activation] for activation in outputs)]

    @contextmanager
    def begun_at(self, layer: int, hidden: Tensor | None) -> Iterator[None]:
        """Let passes inside the block begin at a layer: those before it return `hidden`, each in its own form.

        Args:
            layer: The first layer that runs. Layers that share their weights are skipped together.
            hidden: Hidden states (batch, length, width) after the layer before; None, with `layer` 0, begins with the
                inputs themselves.

        Raises:
            ValueError: If a layer before has not run yet in a pass of this object's, which shows what it returns.
        """
        parts = [self.parts_of(self.encoder, index) for index in range(self.depth)]
        skipped = {part for index in range(layer) for part in parts[index]}
        if not skipped <= self._lengths.keys():
            raise ValueError(f"layer: {layer}; expected: a pass through all layers before it first")
        unknown = {part for ends in parts for part in ends} - self._lengths.keys()
        with hooked(after=[(part, self._see) for part in unknown]), ExitStack() as stack:
            for part in skipped:
                stack.enter_context(replaced_forward(part, _returning(hidden, self._lengths[part])))
            yield

    def _see(self, part: nn.Module, _inputs: Inputs, output: Output) -> None:
        self._lengths[part] = len(output) if isinstance(output, tuple) else None


def _returning(hidden: Tensor | None, length: int | None) -> Callable[..., Output | None]:
    return lambda *_args, **_kwargs: hidden if length is None else (hidden, *[None] * (length - 1))


def filter_forward_inputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those inputs that a model takes, labels left out: losses are the objectives' business."""
    names = forward_names(type(model)) - {"labels"}
    if TOKEN_TYPES not in model_inputs(model.config):
        names -= {TOKEN_TYPES}
    return {name: value for name, value in inputs.items() if name in names}


def forward_names(model_class: type[PreTrainedModel]) -> frozenset[str]:
    """Return the names of the arguments of a model's forward."""
    return frozenset(inspect.signature(model_class.forward).parameters)
