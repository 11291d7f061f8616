"""Whether a model can lose what is asked for: something at all, and no more than it has. No weights are needed."""

from __future__ import annotations

import logging
from typing import NamedTuple

from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.pruning.config import PruningConfig, group_size
from edgemin_hf.pruning.selection import Parameters, least_cost

logger = logging.getLogger(__name__)


class _Kind(NamedTuple):
    """Units that a share is of: so many in a layer, or the model's layers; `step` of them go together."""

    setting: str
    plural: str
    units: int
    step: int


def check_removal(model: PreTrainedModel, config: PruningConfig) -> None:
    """Check that each setting which is to remove something does, and say where it removes less than its share.

    Args:
        model: The model, which may be on the meta device.
        config: What is to go.

    Raises:
        ValueError: If nothing is to go, a share rounds to nothing, or a budget of parameters is met already or can't
            be met.
    """
    shares = ("head_sparsity", "ffn_sparsity", "layer_sparsity")
    if not config.has_budget and not any(getattr(config, name) for name in shares):
        raise ValueError(f"{shares[0]}: 0, as {shares[1]} and {shares[2]}, without a target; expected: one above 0")
    blocks = Encoder(model).blocks
    heads, neurons = (max(counts) for counts in zip(*((b.num_heads, b.num_neurons) for b in blocks), strict=True))
    for kind in (
        _Kind("head_sparsity", "heads", heads, 1),
        _Kind("ffn_sparsity", "neurons", neurons, group_size(neurons)),
        _Kind("layer_sparsity", "layers", model.config.num_hidden_layers, 1),
    ):
        if getattr(config, kind.setting):
            _check_share(getattr(config, kind.setting), kind)
    if config.target_parameters is not None:
        _check_parameters(model, config.target_parameters, layers_go=config.layer_sparsity > 0)


def check_rounds(config: PruningConfig, steps: int) -> None:
    """Check that a schedule has steps for its rounds, and say where it has fewer.

    Raises:
        ValueError: If it has none.
    """
    between = int((config.end - config.start) * steps + 1e-9)
    if config.schedule == "one_shot" or between >= config.rounds:
        return
    place = f"{between} of {steps} steps lie between start {config.start:g} and end {config.end:g}"
    if not between:
        raise ValueError(f"schedule: {config.schedule}, and {place}; allowed: more steps, or one_shot")
    logger.warning("rounds: %d, but %s: several rounds go at once", config.rounds, place)


def _check_share(share: float, kind: _Kind) -> None:
    groups = kind.units // kind.step
    kept = round(groups * (1 - share))
    if min(groups, max(1, kept)) == groups:
        rounds = f"rounds to none of {kind.units} {kind.plural}, which go by {kind.step}"
        allowed = f"0, or above {0.5 / groups:g}" if groups > 1 else "0"
        raise ValueError(f"{kind.setting}: {share:g}, which {rounds}; allowed: {allowed}")
    if kept == 0:
        left = (kind.setting, share, kind.units, kind.plural, kind.step)
        logger.warning("%s: %g of %d %s would leave none; %d stay", *left)


def _check_parameters(model: PreTrainedModel, target: int, layers_go: bool) -> None:
    costs, full = Parameters(model), model.num_parameters()
    if layers_go:  # with how many it is met is known when they are gone
        return
    least = least_cost(costs, [(block.num_heads, block.num_neurons) for block in Encoder(model).blocks])
    if not least <= target < full:
        raise ValueError(f"target_parameters: {target}; allowed: {least:.0f} to below {full}, the student's")
