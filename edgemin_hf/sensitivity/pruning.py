"""What a model predicts with units of one layer masked, of all layers, or without a layer: nothing is trained.

All batches go through all cuts in turn, and what the layers below a cut give is taken from the unpruned model's pass: a
cut in layer l of L costs (L - l) / L of a pass, half of one on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.hooks import PartialForward
from edgemin_hf.modeling.surgery import check_prunable
from edgemin_hf.pruning.depth import without_layer
from edgemin_hf.pruning.masks import masked
from edgemin_hf.pruning.saliency import Saliency
from edgemin_hf.pruning.selection import most_salient
from edgemin_hf.sensitivity.kept import Kept
from edgemin_hf.sensitivity.outputs import rows_of
from edgemin_hf.tasks.base import Outputs

Kind = Literal["heads", "neurons", "layers"]
Masks = list[tuple[nn.Module, Tensor]]
Predict = Callable[[Mapping[str, Tensor]], NDArray[np.generic]]
"""Runs the model on a batch; what it predicts, an example along the first dimension."""


@dataclass(frozen=True)
class Cut:
    """What one measurement takes away.

    Attributes:
        kind: Heads, feed-forward neurons, or a layer as one.
        layer: The layer, numbered from 0 (of ALBERT, the group of layers); None for all at once.
        sparsity: Share of the layer's units that goes, above 0 to 1; 1 for a layer as one.
        removed: How many units go: heads, neurons or layers.
        units: How many there are.
    """

    kind: Kind
    layer: int | None
    sparsity: float
    removed: int
    units: int


def kinds_of(config: PretrainedConfig) -> list[Kind]:
    """Return the kinds of units that a model can lose."""
    kinds: list[Kind] = []
    for kind in ("heads", "neurons", "layers"):
        with suppress(ValueError):
            check_prunable(config, heads=kind == "heads", layers=kind == "layers")
            kinds.append(kind)
    return kinds


def cuts_of(model: PreTrainedModel, sparsities: Sequence[float]) -> list[Cut]:
    """Return all cuts: of each kind and layer at each sparsity, then of all layers at once; each layer by itself.

    As many units go as `PruningConfig` removes at that share, but neurons are not rounded to multiples of 32, and at 1
    none stays: the sublayer adds its bias alone.

    Args:
        model: The model.
        sparsities: Shares of units, above 0 to 1.
    """
    blocks, cuts = Encoder(model).blocks, []
    numbers: list[int | None] = [*range(len(blocks)), None]
    for kind in kinds_of(model.config):
        if kind == "layers":
            cuts += [Cut(kind, layer, 1.0, 1, 1) for layer in range(len(blocks))]
            continue
        for layer in numbers:
            counts = [_units(block, kind) for block in _chosen(blocks, layer)]
            for sparsity in sparsities:
                kept = sum(_kept(count, sparsity) for count in counts)
                cuts.append(Cut(kind, layer, sparsity, sum(counts) - kept, sum(counts)))
    return cuts


@torch.inference_mode()
def predict_with_cuts(
    model: PreTrainedModel,
    saliency: Saliency,
    cuts: Sequence[Cut],
    batches: Sequence[Mapping[str, Tensor]],
    predict: Predict,
    kept: Kept | None = None,
) -> tuple[Outputs, dict[Cut, Outputs]]:
    """Predict with the unpruned model, and with each cut: its least salient units masked, all others as they are.

    Args:
        model: The model; set to evaluation mode meanwhile.
        saliency: The scores of its units.
        cuts: The cuts, as of `cuts_of`.
        batches: Batches of its inputs.
        predict: Runs the model on a batch.
        kept: Keeps what was predicted, and knows what was before; None keeps nothing.

    Returns:
        The unpruned model's predictions in the order of the batches, as of `rows_of`, and those with each cut.
    """
    parts: list[Mapping[str, NDArray[np.generic]]] = []
    masks = {cut: _masks(model, saliency, cut) for cut in cuts}
    layers = PartialForward(model)
    was_training = model.training
    model.eval()
    try:
        with tqdm(total=len(batches) * (1 + len(cuts)), desc="Sensitivity", unit="pass") as bar:

            def predicted(batch: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]]:
                unpruned, hidden = layers.observe(partial(predict, batch))
                bar.update()
                found = {"unpruned": unpruned}
                for number, cut in enumerate(cuts):
                    with _applied(layers, cut, masks[cut], hidden):
                        found[str(number)] = predict(batch) if cut.removed else unpruned
                    bar.update()
                return found

            for number, batch in enumerate(batches):
                one = partial(predicted, batch)
                parts.append(one() if kept is None else kept.take(f"cuts-{number}", one))
                bar.update(max(0, (number + 1) * (1 + len(cuts)) - bar.n))
    finally:
        model.train(was_training)
    together = {name: rows_of([part[name] for part in parts], batches) for name in parts[0]}
    return together["unpruned"], {cut: together[str(number)] for number, cut in enumerate(cuts)}


def _chosen(blocks: Sequence[Layer], layer: int | None) -> Sequence[Layer]:
    return blocks if layer is None else [blocks[layer]]


def _units(block: Layer, kind: Kind) -> int:
    return block.num_heads if kind == "heads" else block.num_neurons


def _kept(units: int, sparsity: float) -> int:
    return round(units * (1 - sparsity))


def _masks(model: PreTrainedModel, saliency: Saliency, cut: Cut) -> Masks:
    masks: Masks = []
    for layer, block in enumerate(Encoder(model).blocks):
        if cut.kind == "layers" or cut.layer not in (None, layer):
            continue
        units = _units(block, cut.kind)
        kept = most_salient(saliency, layer, int(cut.kind == "neurons"), _kept(units, cut.sparsity))
        mask = torch.zeros(units, device=model.device)
        mask[torch.tensor(kept, dtype=torch.long, device=model.device)] = 1
        masks.append((block.attention_output if cut.kind == "heads" else block.ffn_out, mask))
    return masks


@contextmanager
def _applied(layers: PartialForward, cut: Cut, masks: Masks, hidden: Sequence[Tensor | None]) -> Iterator[None]:
    """Make a model compute with a cut, from the `hidden` states that go into its layer.

    A pass with a cut in all layers, or in those that share their weights, begins with the inputs.
    """
    start = 0 if cut.layer is None or layers.encoder.shares_layers else cut.layer
    removed = without_layer(layers.model, start) if cut.kind == "layers" else nullcontext()
    with layers.begun_at(start, hidden[start]), removed, masked(masks):
        yield
