"""INT8 post-training quantisation by Intel Neural Compressor (INC) 3.7: its `fit`, on our linear layers alone.

INC traces code, and of whole models keeps one branch or fails. It is given a model of nothing but the linear layers,
side by side, and what each of them receives while the float model runs: the same ranges, since `fit` observes a float
model too. Inputs: uint8 0..255 by tensor, the range of a histogram that rounds with the least error. Weights: int8
-128..127, symmetric by row, scales of max|w| / 127.5, which `reduce_range` stretches to -64..64 and max|w| / 64. Its
grids of outputs are left: ours stay in floating point.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Inputs, hooked
from edgemin_hf.neural_compressor.guest import importing_inc
from edgemin_hf.neural_compressor.qat import grid_bounds
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.native import SEVEN_BITS, FakeQuantLinear, fake_quantized_linears, prepare_embeddings
from edgemin_hf.quantization.precision import precisions

if TYPE_CHECKING:
    from neural_compressor import PostTrainingQuantConfig


class _Grids(NamedTuple):
    """What INC found for a linear layer: scale and zero point of its input, () each, and its rows' scales (out, 1)."""

    scale: Tensor
    zero_point: Tensor
    weight_scale: Tensor


class _SideBySide(nn.Module):
    """Linear layers, each with its own input; nothing in it depends on values, so it can be traced."""

    def __init__(self, linears: Iterable[nn.Linear]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(copy.deepcopy(linear).cpu() for linear in linears)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        return [linear(inputs[index]) for index, linear in enumerate(self.linears)]


def quantize_by_inc(
    model: PreTrainedModel, config: QuantizationConfig, batches: Iterable[Mapping[str, Tensor]]
) -> PostTrainingQuantConfig:
    """Quantise a trained model, in place: its linear layers on grids that INC's `fit` finds, its embeddings on ours.

    Args:
        model: The model, plain and fp32; its parameters stay the same objects and keep their values.
        config: What to quantise: `overrides`, `embeddings` and `reduce_range`, which stretches INC's weight scales.
        batches: Batches of its inputs, on which INC observes it.

    Returns:
        What INC was asked for, for `write_inc_config`.

    Raises:
        ValueError: If the model is not plain and fp32, `overrides` do not fit it or ask for INT4 layers, INC fails or
            leaves a linear layer as it is that is to be INT8, or it is not installed.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import QuantizationConfig
        >>> from edgemin_hf.neural_compressor import quantize_by_inc
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).eval()
        >>> batch = {"input_ids": torch.tensor([[2, 7, 8, 3]])}
        >>> _ = quantize_by_inc(model, QuantizationConfig(provider="inc"), [batch])
        >>> type(model.classifier).__name__
        'FakeQuantLinear'
    """
    if fake_quantized_linears(model):
        raise ValueError("model: quantised already; allowed: a plain one")
    if model.dtype != torch.float32:
        raise ValueError(f"model: of {model.dtype}; allowed: torch.float32")
    wanted = precisions(model, config)
    found = [place for place in Encoder(model).linears() if wanted[place[2]] == "int8"]
    linears = [linear for _, _, linear in found]
    batches = list(batches)
    inc = _import_inc()
    asked = inc.config(
        calibration_sampling_size=[sum(len(batch["input_ids"]) for batch in batches)],
        reduce_range=False,  # else INC narrows inputs to 7 bits where the processor at hand lacks VNNI
        excluded_precisions=["bf16"],
        quant_level=1,  # quantises once; the default searches
    )
    grids = _fit(inc, asked, model, linears, batches) if linears else {}
    names = {module: name for name, module in model.named_modules()}
    left = [names[linear] for index, linear in enumerate(linears) if index not in grids]
    if left:
        raise ValueError(
            f"{', '.join(left)} of model type {model.config.model_type!r}: not quantised by Neural Compressor; "
            "allowed: plain linear layers, or overrides fp32"
        )
    for index, (parent, name, linear) in enumerate(found):
        made = FakeQuantLinear(linear, config.range_momentum)
        low, high = grid_bounds(grids[index].scale, grids[index].zero_point)
        made.input_low.copy_(low)
        made.input_high.copy_(high)
        made.weight_scale = grids[index].weight_scale.to(linear.weight.device)
        if config.reduce_range:
            made.weight_integers = SEVEN_BITS
            made.weight_scale *= 127.5 / SEVEN_BITS[1]
        setattr(parent, name, made.train(linear.training))
    prepare_embeddings(model, config)
    return asked


def _fit(
    inc: SimpleNamespace,
    asked: PostTrainingQuantConfig,
    model: PreTrainedModel,
    linears: list[nn.Linear],
    batches: list[Mapping[str, Tensor]],
) -> dict[int, _Grids]:
    """Return what INC finds for a model's linear layers, by their numbers."""
    # INC's `fit` swallows all that is raised in it, KeyboardInterrupt too: what comes from our side is kept.
    raised: list[BaseException] = []

    def calibrate(prepared: nn.Module) -> None:
        try:
            _observe(model, linears, batches, prepared)
        except BaseException as error:
            raised.append(error)
            raise

    with _contained(inc):
        fitted = inc.fit(_SideBySide(linears).eval(), asked, calib_func=calibrate)
    if raised:
        raise raised[0]
    if fitted is None:  # it has printed why
        raise ValueError("provider: inc, which fails on the model's linear layers; allowed: native")
    graph: torch.fx.GraphModule = fitted.model
    modules, grids = dict(graph.named_modules()), {}
    for node in graph.graph.nodes:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, inc.linear):
            scale, zero_point = (getattr(graph, argument.target) for argument in node.args[0].args[1:3])
            rows = layer.weight().q_per_channel_scales().float()[:, None]
            grids[int(node.target.rpartition(".")[2])] = _Grids(scale, zero_point, rows)
    return grids


@torch.no_grad()
def _observe(
    model: PreTrainedModel, linears: list[nn.Linear], batches: list[Mapping[str, Tensor]], observers: nn.Module
) -> None:
    """Run a model on batches, and give `observers` what each linear layer received, (tokens, in_features) each."""
    seen: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, args: Inputs) -> None:
        seen.setdefault(module, []).append(args[0].flatten(0, -2).cpu())

    was_training = model.training
    model.eval()
    try:
        with hooked(before=[(linear, keep) for linear in linears]):
            for batch in batches:
                seen.clear()
                model(**{name: value.to(model.device) for name, value in batch.items()})
                observers([torch.cat(seen[linear]) for linear in linears])  # several where layers share it
    finally:
        model.train(was_training)


@contextmanager
def _contained(inc: SimpleNamespace) -> Iterator[None]:
    """Keep `fit` from the current folder, the random generators, and from warnings of no use."""
    log, workspace = logging.getLogger("neural_compressor"), inc.options.workspace
    level, states = log.level, (random.getstate(), np.random.get_state())
    with TemporaryDirectory() as folder, torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "LOGLEVEL" not in os.environ:
            log.setLevel(logging.ERROR)
        inc.options.workspace = folder
        try:
            yield
        finally:
            inc.options.workspace = workspace
            log.setLevel(level)
            random.setstate(states[0])
            np.random.set_state(states[1])


def _import_inc() -> SimpleNamespace:
    with importing_inc("provider: inc"):
        from neural_compressor import PostTrainingQuantConfig, quantization
        from neural_compressor.config import options
        from torch.ao.nn.quantized import Linear
    return SimpleNamespace(config=PostTrainingQuantConfig, fit=quantization.fit, options=options, linear=Linear)
