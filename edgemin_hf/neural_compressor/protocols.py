"""What is used of Neural Compressor's pruners: its classes have no annotations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Protocol, TypedDict, TypeGuard

from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
"""A tensor for each layer, by its name."""
GetMasks = Callable[[Tensors, float, Tensors], Tensors]
"""From scores, the share to remove and the masks before: the next masks."""


class Criterion(Protocol):
    """What scores weights."""

    scores: dict[str, Tensor]


class Pattern(Protocol):
    """What makes masks of scores.

    Attributes:
        invalid_layers: Names of the layers that it does not fit; a pattern of heads lacks it.
        keep_mask_layers: By a layer's name, whether its mask stays as it is; a pattern of heads lacks it.
    """

    get_masks: GetMasks
    invalid_layers: Collection[str]
    keep_mask_layers: Mapping[str, bool]


class Scheduler(Protocol):
    """What tells the share to remove by now, from that of the end, the rounds that are done, and all rounds."""

    update_sparsity_ratio: Callable[..., float]


class Pruner(Protocol):
    """A pruner of some layers.

    Attributes:
        criterion: What scores its weights; a pruner that needs no scores has none.
        units_to_keep: Heads or neurons to keep, which `own_pruners` sets on its pruners.
    """

    config: Mapping[str, object]
    modules: Mapping[str, nn.Linear]
    masks: dict[str, Tensor]
    pattern: Pattern
    criterion: Criterion
    scheduler: Scheduler
    global_step: int
    start_step: int
    end_step: int
    pruning_frequency: int
    completed_pruned_cnt: int
    total_prune_cnt: int
    mask_weights: Callable[[], None]
    units_to_keep: int

    def on_step_begin(self, local_step: int) -> None:
        """Update the masks where the schedule says so."""

    def on_before_optimizer_step(self) -> None:
        """Score the weights."""

    def on_after_optimizer_step(self) -> None:
        """Mask the weights."""

    def on_step_end(self) -> None:
        """Count the step."""


class HeadPruner(Pruner, Protocol):
    """A pruner of attention heads."""

    linear_layers: Mapping[str, nn.Linear]
    head_masks: dict[str, Tensor]


class Attention(TypedDict):
    """A layer's attention, as a pruner of heads takes it; `mha_module` tells its numbers of heads and their width."""

    qkv_name: list[str]
    qkv_module: list[nn.Linear]
    ffn_name: list[str]
    ffn_module: list[nn.Linear]
    mha_name: list[str]
    mha_module: list[SimpleNamespace]


def prunes_heads(pruner: Pruner) -> TypeGuard[HeadPruner]:
    """Return whether a pruner is one of heads."""
    return hasattr(pruner, "head_masks")
