"""Scaling what stays of a pruned model, layer by layer, so that it computes what the unpruned model computed.

Kwon et al. 2022 (arXiv 2204.09656, section 4.3): the masks m of a layer's remaining units are the least-squares
solution of || sum_i m_i f_i(x) + x - (f'(x') + x') ||, where f_i is what unit i adds to the residual stream, x the
pruned model's stream and x', f' the unpruned model's. Multiplied into the columns that read the units, they cost
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import hooked
from edgemin_hf.utils.processes import summed

Forward = Callable[[PreTrainedModel, Mapping[str, Tensor]], object]

_RIDGE = 1e-3
"""Pull of the masks towards 1, as a share of the mean of the normal matrix's diagonal: units that often agree have no
unique solution."""
_LARGEST = 10.0
"""A mask beyond this fits noise: then the layer's stay 1 (as in the paper's experiments)."""


@torch.no_grad()
def tune_masks(
    model: PreTrainedModel, unpruned: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]], forward: Forward
) -> None:
    """Scale, in place, the columns that read the heads and neurons of a pruned model.

    Args:
        model: The pruned model.
        unpruned: The model before the removal, of the same depth.
        batches: Batches of inputs that hold `attention_mask`, this process's share: all processes' count.
        forward: Runs a model on a batch.

    Raises:
        ValueError: As `check_tunable`.
    """
    check_tunable(model)
    encoder = Encoder(model)
    modes = model.training, unpruned.training
    model.eval()
    unpruned.eval()
    try:
        for ours, theirs in zip(encoder.blocks, Encoder(unpruned).blocks, strict=True):
            for stream, linear, size in (("q", "attention_output", encoder.head_size), ("ffn_in", "ffn_out", 1)):
                small = _Sublayer(model, getattr(ours, stream), getattr(ours, linear), forward)
                large = _Sublayer(unpruned, getattr(theirs, stream), getattr(theirs, linear), forward)
                _tune(small, large, size, batches)
    finally:
        model.train(modes[0])
        unpruned.train(modes[1])


def check_tunable(model: PreTrainedModel) -> None:
    """Check that a family's layers are what the paper's formula describes: not shared, and normalised after the sum.

    Raises:
        ValueError: If not, naming the family.
    """
    if Encoder(model).family.layers_differ:
        raise ValueError(f"tune_masks: true for model type {model.config.model_type!r}; allowed: false")


@dataclass(frozen=True)
class _Sublayer:
    """An attention or feed-forward network: `linear` reads its units, `stream` what is added to its output."""

    model: PreTrainedModel
    stream: nn.Linear
    linear: nn.Linear
    forward: Forward

    def run(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the units' activations, the output, and the residual stream of a batch's real tokens, float64."""
        streams: list[Tensor] = []
        passed: list[Tensor] = []
        with hooked(
            before=[(self.stream, lambda _, args: streams.append(args[0]))],
            after=[(self.linear, lambda _, args, output: passed.extend([args[0], output]))],
        ):
            self.forward(self.model, batch)
        real = batch["attention_mask"].bool()
        # DeBERTa's projections are called again, on relative positions.
        stream, units, output = (tensor[real].double() for tensor in (streams[0], *passed))
        return units, output, stream


def _tune(ours: _Sublayer, theirs: _Sublayer, size: int, batches: Sequence[Mapping[str, Tensor]]) -> None:
    """Find the masks of the units, `size` columns each, by the normal equations, and multiply them in."""
    linear = ours.linear
    weight = linear.weight.double()
    columns = weight.unflatten(1, (-1, size))  # (width, units, size)
    normal = weight.new_zeros(columns.shape[1], columns.shape[1])
    right = weight.new_zeros(columns.shape[1])
    for batch in batches:
        units, _, stream = ours.run(batch)
        _, output, unpruned_stream = theirs.run(batch)
        target = output + unpruned_stream - stream
        if linear.bias is not None:
            target -= linear.bias.double()
        if size == 1:  # a unit adds its activation times its column: their products are those of the two apart
            normal += (units.T @ units) * (weight.T @ weight)
            right += ((target @ weight) * units).sum(0)
        else:
            parts = torch.einsum("tus,wus->tuw", units.unflatten(1, (-1, size)), columns)
            normal += torch.einsum("tuw,tvw->uv", parts, parts)
            right += torch.einsum("tuw,tw->u", parts, target)
    normal, right = summed(normal), summed(right)
    ridge = _RIDGE * normal.diagonal().mean().clamp(min=torch.finfo(normal.dtype).tiny)
    masks = torch.linalg.solve(normal + ridge * torch.eye(len(right)).to(normal), right + ridge)
    if masks.abs().max() <= _LARGEST:
        linear.weight.mul_(masks.repeat_interleave(size).to(linear.weight.dtype))
