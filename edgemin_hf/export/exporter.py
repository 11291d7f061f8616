"""The ONNX graph of a model, as `torch.onnx.export` traces it: one way for all families, heads and versions.

Inputs and outputs are read off the model: what its forward takes and its tokenizer gives, and what it answers. An axis
that grows with the batch or with the length is dynamic. Decoders, caches and images are left out, and for the trace
nothing of a model is changed but its forward's arguments. Optimum's exporter, which this replaces, knows transformers 4
alone.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.modeling.hooks import forward_names, replaced_forward
from edgemin_hf.modeling.tokenizers import model_inputs

OPSET = 18
"""Of every graph as it is traced: what ONNX Runtime 1.17, transformers.js 3 and text-embeddings-inference load."""

_MASK = "create_bidirectional_mask"
"""What makes the mask of all tokens, in the module of a family's models: of transformers 5."""


def export_graph(model: PreTrainedModel, path: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Trace a model and write its graph, of opset 18, with a dynamic batch and length.

    Args:
        model: A model with any head: on the CPU, in float32, with eager attention, whose graph is the smallest. It
            stays as it is.
        path: The file. Above 2 GB its tensors are stored beside it, each in a file of its own.
        tokenizer: Its tokenizer, where the graph must not want what that does not give.
    """
    sample = _sample(model, tokenizer, batch=2, length=8)
    with _evaluated(model), _plain_masks(model), quiet_exporter(), torch.no_grad():
        answers = _answers(model, sample), _answers(model, _sample(model, tokenizer, batch=3, length=9))
        axes = {name: _dynamic_axes(*(answer[name] for answer in answers)) for name in answers[0]}
        with _positional(model, list(sample), list(axes)):
            torch.onnx.export(
                model,
                tuple(sample.values()),
                str(path),
                input_names=list(sample),
                output_names=list(axes),
                dynamic_axes=axes | {name: {0: "batch_size", 1: "sequence_length"} for name in sample},
                opset_version=OPSET,
                dynamo=False,
            )


def input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None) -> list[str]:
    """Return what a model's graph takes: what its forward knows, of what its tokenizer gives."""
    names = model_inputs(model.config)
    given = names if tokenizer is None else tokenizer.model_input_names
    return [name for name in names if name in given and name in forward_names(type(model))]


def _sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, *, batch: int, length: int
) -> dict[str, Tensor]:
    """Make inputs (batch, length), int64; the last text is padded, or a model might leave its mask out of the trace."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, -1] = 0
    values = {"input_ids": mask, "attention_mask": mask, "token_type_ids": torch.zeros_like(mask)}
    return {name: values[name].clone() for name in input_names(model, tokenizer)}


def _answers(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that a model answers, by name; of an encoder without a head its hidden states alone."""
    answer = model(**inputs, return_dict=True)
    return {name: value for name, value in answer.items() if isinstance(value, Tensor) and name != "pooler_output"}


def _dynamic_axes(small: Tensor, large: Tensor) -> dict[int, str]:
    """Name the axes that grew from a sample (2, 8) to one of (3, 9)."""
    names = {(2, 3): "batch_size", (8, 9): "sequence_length"}
    sizes = enumerate(zip(small.shape, large.shape, strict=True))
    return {axis: names[pair] for axis, pair in sizes if pair in names}


@contextmanager
def _positional(model: PreTrainedModel, inputs: list[str], outputs: list[str]) -> Iterator[None]:
    """Let a model take its inputs by position and answer with a tuple, as the tracer does."""
    forward = model.forward

    def positional(*tensors: Tensor) -> tuple[Tensor, ...]:
        answer = forward(**dict(zip(inputs, tensors, strict=True)), return_dict=True)
        return tuple(answer[name] for name in outputs)

    with replaced_forward(model, positional):
        yield


@contextmanager
def _plain_masks(model: PreTrainedModel) -> Iterator[None]:
    """Let a model of transformers 5 make the mask of padding that it made in 4.

    There it is made as any mask is: for each pair of tokens, by index arithmetic, which is 40 nodes more in a
    graph of 72. Windows of local attention are left as they are.
    """
    module = sys.modules[type(model.base_model).__module__]
    own = getattr(module, _MASK, None)
    if own is not None:
        setattr(module, _MASK, _padding_mask)
    try:
        yield
    finally:
        if own is not None:
            setattr(module, _MASK, own)


def _padding_mask(config: PretrainedConfig, inputs_embeds: Tensor, attention_mask: Tensor, **_: object) -> Tensor:
    """Return what eager attention adds to scores: a mask (batch, length) -> (batch, 1, 1, length)."""
    dtype = inputs_embeds.dtype
    return (1 - attention_mask[:, None, None, :].to(dtype)) * torch.finfo(dtype).min


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each module back into its own at the end."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the tracer's warnings about shapes that are constant on purpose, and what ONNX Runtime's quantiser logs.

    That goes to the root logger, which would get a handler by it; what others log there is not touched.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(_is_error)
    try:
        with warnings.catch_warnings():
            for category in (torch.jit.TracerWarning, DeprecationWarning, UserWarning):
                warnings.filterwarnings("ignore", category=category)
            yield
    finally:
        root.removeFilter(_is_error)
        root.removeHandler(handler)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
