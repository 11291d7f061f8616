"""Choosing by saliency which heads and neurons stay: by shares, or by a budget that chooses the mix."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.surgery import Selection, check_prunable
from edgemin_hf.pruning.config import PruningConfig, group_size
from edgemin_hf.pruning.saliency import Saliency

logger = logging.getLogger(__name__)


class Costs(Protocol):
    """What a model's layers cost, in the unit of a budget."""

    name: str
    fixed: float

    def heads(self, layer: int, count: int) -> float:
        """Return the cost of a layer's attention with so many heads."""

    def neurons(self, layer: int, count: int) -> float:
        """Return the cost of a layer's feed-forward network with so many neurons."""

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run could not find out again; nothing, where the model tells it all."""


class Parameters:
    """Costs in parameters.

    Attributes:
        fixed: Parameters outside the layers' heads and neurons.
    """

    name = "target_parameters"

    def __init__(self, model: PreTrainedModel) -> None:
        encoder = Encoder(model)
        self._head = [_rows_of_heads(block, encoder) / block.num_heads for block in encoder.blocks]
        self._neuron = [_rows_of_neurons(block) / block.num_neurons for block in encoder.blocks]
        units = sum(
            self.heads(index, block.num_heads) + self.neurons(index, block.num_neurons)
            for index, block in enumerate(encoder.blocks)
        )
        self.fixed = model.num_parameters() - units

    def heads(self, layer: int, count: int) -> float:
        """Return the parameters of a layer's heads."""
        return count * self._head[layer]

    def neurons(self, layer: int, count: int) -> float:
        """Return the parameters of a layer's neurons."""
        return count * self._neuron[layer]

    def state(self) -> dict[str, Tensor]:
        """Return nothing: a model's parameters can be counted again."""
        return {}


def _rows_of_heads(block: Layer, encoder: Encoder) -> int:
    width, names = block.attention_width, [encoder.family.q, encoder.family.k, encoder.family.v]
    names += encoder.family.head_rows
    first = {id(p): p for n, p in block.module.named_parameters() if n in names or n.rpartition(".")[0] in names}
    rows: int = sum(p.numel() for p in first.values() if p.shape[0] % width == 0)
    columns: int = block.attention_output.weight.numel()
    return rows + columns


def _rows_of_neurons(block: Layer) -> int:
    rows: int = sum(parameter.numel() for parameter in block.ffn_in.parameters())
    columns: int = block.ffn_out.weight.numel()
    return rows + columns


def select(
    model: PreTrainedModel,
    saliency: Saliency,
    config: PruningConfig,
    costs: Costs | None = None,
    progress: float = 1.0,
) -> Selection:
    """Select the heads and neurons that stay, in their old order.

    Args:
        model: The model, unpruned or with units masked; it stays as it is.
        saliency: The scores of its units.
        config: What is to go.
        costs: The costs that a budget counts; None where `config` has none.
        progress: Share of the removal that is due, 0 to 1.

    Returns:
        What stays of each layer.

    Raises:
        ValueError: If the model can't lose what `config` asks for, or a budget is too small for the least model: one
            head and 32 neurons in each layer.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.pruning import PruningConfig, Saliency, select
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertModel(BertConfig(vocab_size=50, **shape))
        >>> scores = Saliency(heads=[torch.tensor([3.0, 1.0, 2.0, 4.0])] * 2, neurons=[torch.rand(64)] * 2)
        >>> selection = select(model, scores, PruningConfig(head_sparsity=0.5))  # for `edgemin_hf.modeling.remove`
        >>> [list(heads) for heads in selection.heads]
        [[0, 3], [0, 3]]
    """
    check_prunable(model.config, heads=config.removes_heads)
    choice = _Choice(saliency, by_layer=config.scope == "layer")
    if costs is not None:
        target = config.target_parameters or config.target_latency_ms
        choice.shrink_to(costs, float(target or 0), progress)
    elif config.scope == "model":
        choice.shrink_by(config, progress)
    else:
        choice.counts = [
            (config.kept_heads(len(heads), progress), config.kept_neurons(len(neurons), progress))
            for heads, neurons in zip(saliency.heads, saliency.neurons, strict=True)
        ]
    return Selection(
        [most_salient(saliency, layer, 0, heads) for layer, (heads, _) in enumerate(choice.counts)],
        [most_salient(saliency, layer, 1, neurons) for layer, (_, neurons) in enumerate(choice.counts)],
    )


def least_cost(costs: Costs, counts: Sequence[tuple[int, int]]) -> float:
    """Return the cost of the least that pruning leaves of layers with so many heads and neurons."""
    neurons = [group_size(count) for _, count in counts]
    return costs.fixed + sum(costs.heads(i, 1) + costs.neurons(i, count) for i, count in enumerate(neurons))


def most_salient(saliency: Saliency, layer: int, kind: int, count: int) -> list[int]:
    """Return, in their order, the units of a layer that stay where `count` do.

    Args:
        saliency: The scores; with gradients, units are exchanged by their products (`rearranged`).
        layer: The layer, numbered from 0.
        kind: 0 for its heads, 1 for its neurons.
        count: How many stay.
    """
    kept = sorted((saliency.heads, saliency.neurons)[kind][layer].topk(count).indices.tolist())
    return kept if saliency.gradients is None else rearranged(kept, saliency.gradients[layer][kind])


@dataclass(frozen=True)
class _Step:
    """Units that go together: of some layers, one kind (0 heads, 1 neurons), so many of each."""

    layers: tuple[int, ...]
    kind: int
    units: int


class _Choice:
    """How many heads and neurons of each layer stay, made smaller step by step."""

    def __init__(self, saliency: Saliency, by_layer: bool) -> None:
        self.scores = [
            (heads.sort().values, neurons.sort().values)
            for heads, neurons in zip(saliency.heads, saliency.neurons, strict=True)
        ]
        self.counts = [(len(heads), len(neurons)) for heads, neurons in self.scores]
        every = tuple(range(len(self.scores)))
        groups = [every] if by_layer else [(layer,) for layer in every]
        self.steps = [_Step(group, 0, 1) for group in groups]
        self.steps += [_Step(group, 1, group_size(self.counts[group[0]][1])) for group in groups]

    def shrink_to(self, costs: Costs, target: float, progress: float) -> None:
        """Remove what saves most for its saliency, until the cost is the target's or, on the way to it, its share."""
        full, least = self._cost(costs), least_cost(costs, self.counts)
        if least > target:
            least = math.ceil(1000 * least) / 1000  # what the message names is allowed
            raise ValueError(
                f"{costs.name}: {target:.12g}; allowed: {least:.12g} or more, one head and few neurons a layer"
            )
        if full <= target and progress == 1:
            logger.warning("%s: %.6g, and it is %.6g before anything goes; nothing does", costs.name, target, full)
        goal = target + (1 - progress) * (full - target)  # in the end the target itself, not one rounding below it

        def price(step: _Step) -> float:
            saved = self._saved(costs, step)
            return self._saliency(step) / saved if saved > 0 else float("inf")

        while self._cost(costs) > goal:
            self._take(min(filter(self._possible, self.steps), key=price))
        logger.info("%s: %.6g predicted of %.6g, for a target of %.6g", costs.name, self._cost(costs), full, target)

    def shrink_by(self, config: PruningConfig, progress: float) -> None:
        """Remove the least salient of each kind, whatever their layer, until their share is gone."""
        for kind, kept_of in ((0, config.kept_heads), (1, config.kept_neurons)):
            goal = sum(kept_of(count[kind], progress) for count in self.counts)
            while sum(count[kind] for count in self.counts) > goal:
                steps = [step for step in self.steps if step.kind == kind and self._possible(step)]
                self._take(min(steps, key=self._saliency))

    def _possible(self, step: _Step) -> bool:
        return all(self.counts[layer][step.kind] > step.units for layer in step.layers)

    def _saliency(self, step: _Step) -> float:
        total = 0.0
        for layer in step.layers:
            scores = self.scores[layer][step.kind]
            gone = len(scores) - self.counts[layer][step.kind]
            total += float(scores[gone : gone + step.units].sum())
        return total

    def _take(self, step: _Step) -> None:
        for layer in step.layers:
            heads, neurons = self.counts[layer]
            self.counts[layer] = (heads - step.units, neurons) if step.kind == 0 else (heads, neurons - step.units)

    def _cost(self, costs: Costs) -> float:
        return costs.fixed + sum(
            costs.heads(layer, heads) + costs.neurons(layer, neurons)
            for layer, (heads, neurons) in enumerate(self.counts)
        )

    def _saved(self, costs: Costs, step: _Step) -> float:
        cost_of = (costs.heads, costs.neurons)[step.kind]
        counts = [(layer, self.counts[layer][step.kind]) for layer in step.layers]
        return sum(cost_of(layer, count) - cost_of(layer, count - step.units) for layer, count in counts)


def rearranged(kept: list[int], gradients: Tensor) -> list[int]:
    """Exchange units of a layer so that those that go hurt least together (Kwon et al. 2022, section 4.2).

    What goes costs (1 - m)^T F (1 - m) with F the Fisher information of the layer's masks: the squared norm of the sum
    of their gradients over examples. From the least salient on, each unit that stays joins those that go, and of all of
    them the one is taken back without which the sum is smallest.

    Args:
        kept: The units that stay.
        gradients: The gradients of their masks, (examples, units).

    Returns:
        The units that stay, as many, in their order.
    """
    units = gradients.shape[1]
    gone = sorted(set(range(units)) - set(kept))
    if not gone or not kept:
        return kept
    fisher = gradients.double().T @ gradients.double()
    order = sorted(kept, key=lambda unit: float(fisher[unit, unit]))
    chosen = torch.zeros(units, dtype=torch.bool)
    chosen[gone] = True
    with_gone = fisher[:, chosen].sum(1)  # F (1 - m)
    for unit in order:
        chosen[unit] = True
        with_gone += fisher[:, unit]
        # Without unit i: s - 2 (F (1 - m))_i + F_ii, of which s is the same for all.
        change = torch.where(chosen, fisher.diagonal() - 2 * with_gone, torch.inf)
        back = int(change.argmin())
        chosen[back] = False
        with_gone -= fisher[:, back]
    left: list[int] = torch.nonzero(~chosen).flatten().tolist()
    return left
