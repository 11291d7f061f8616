"""One-shot pruning, before training or without it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.depth import remove_least_layers
from edgemin_hf.pruning.saliency import MEASURES, Batches, Loss, random_saliency
from edgemin_hf.pruning.selection import Costs, select
from edgemin_hf.pruning.tuning import tune_masks
from edgemin_hf.utils.processes import check_same


def prune_layers(model: PreTrainedModel, config: PruningConfig, batches: Batches, loss_of: Loss) -> None:
    """Remove the layers that a configuration asks to remove, in place.

    Args:
        model: The model.
        config: What to remove.
        batches: Batches of the model's inputs that the losses are measured on.
        loss_of: Computes the loss of a batch.
    """
    if config.layer_sparsity:
        remove_least_layers(model, config.kept_layers(model.config.num_hidden_layers), list(batches), loss_of)


def prune_units(
    model: PreTrainedModel,
    config: PruningConfig,
    batches: Callable[[], Batches],
    select_units: Callable[[Callable[[], Batches]], Selection],
    forward: Callable[[PreTrainedModel, Mapping[str, Tensor]], object],
) -> None:
    """Remove heads and feed-forward neurons in one shot, in place, the same ones in all processes.

    Args:
        model: The model.
        config: Whether what stays is tuned afterwards; the rest is for `select_units`.
        batches: Returns, each time, the batches that units are chosen by, and what stays is tuned on.
        select_units: Chooses what stays by such batches: `select_by_saliency`, or another provider's.
        forward: Runs a model on a batch.

    Raises:
        RuntimeError: If processes chose differently.
    """
    selection = select_units(batches)
    check_same("pruning_config: the units that stay", selection.plain())
    unpruned = copy.deepcopy(model) if config.tune_masks else None
    remove(model, selection)
    if unpruned is not None:
        tune_masks(model, unpruned, list(batches()), forward)


def select_by_saliency(
    model: PreTrainedModel,
    config: PruningConfig,
    batches: Callable[[], Batches],
    loss_of: Loss,
    costs: Costs | None = None,
) -> Selection:
    """Choose what stays by the saliency of a configuration over all processes; the model is left as it is.

    Args:
        model: The model.
        config: What to remove, and by which saliency; its schedule plays no part.
        batches: Returns the batches that saliency is measured on, this process's share.
        loss_of: Computes the loss of a batch, a mean over its examples.
        costs: The costs that a budget counts; None where `config` has none.

    Returns:
        What stays of each layer.
    """
    if config.saliency == "random":
        return select(model, random_saliency(model, config.pruning_seed), config, costs)
    return select(model, MEASURES[config.saliency](model, batches(), loss_of), config, costs)
