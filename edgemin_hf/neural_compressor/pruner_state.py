"""What INC's pruners hold of a model: their layers, scores and masks, and all of it in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection
from edgemin_hf.neural_compressor.protocols import Pruner, prunes_heads
from edgemin_hf.utils.processes import check_same

_TENSORS = ("masks", "head_masks", "pre_masks", "progressive_masks")
_NUMBERS = (
    "global_step", "handled_global_step", "completed_pruned_cnt", "current_sparsity_ratio", "init_sparsity_ratio",
    "structured_update_step", "align_masks_flag",
)  # fmt: skip
_SETTINGS = (
    "pattern", "pruning_type", "target_sparsity", "start_step", "end_step", "pruning_frequency", "pruning_scope",
    "sparsity_decay_type",
)  # fmt: skip


def pruned_linears(pruner: Pruner) -> Mapping[str, nn.Linear]:
    """Return the linear layers that a pruner masks, by name."""
    return pruner.linear_layers if prunes_heads(pruner) else pruner.modules


def score_weights(pruner: Pruner, scale: float = 1.0) -> None:
    """Let a pruner score its weights by their gradients; not by such that are not finite, as where fp16 overflowed.

    Args:
        pruner: The pruner.
        scale: What the gradients are multiplied with.

    Raises:
        ValueError: If the loss gives a layer none.
    """
    weights = {name: linear.weight for name, linear in pruned_linears(pruner).items()}
    gradients = {name: weight.grad for name, weight in weights.items()}
    if pruner.config["criterion_type"] != "magnitude" and hasattr(pruner, "criterion"):
        for name, gradient in gradients.items():
            if gradient is None:
                raise ValueError(
                    f"saliency: {pruner.config['criterion_type']}, but the loss does not reach {name}; allowed: a loss "
                    "of the model's output beside it, such as task distillation, or magnitude"
                )
    if not all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients.values()):
        return
    if scale != 1:
        for name, gradient in gradients.items():
            weights[name].grad = None if gradient is None else gradient / scale
    pruner.on_before_optimizer_step()
    for name, gradient in gradients.items():
        weights[name].grad = gradient  # the optimizer's


def check_count(pruner: Pruner) -> None:
    """Check that a pruner keeps as many units as it was made for.

    Raises:
        RuntimeError: If not.
    """
    for name, mask in _masks(pruner).items():
        if int(mask.sum()) != pruner.units_to_keep:
            raise RuntimeError(
                f"INC keeps {int(mask.sum())} units of {name}, not {pruner.units_to_keep}, after "
                f"{pruner.global_step} steps: its pruning is not over"
            )


def mask_all(pruner: Pruner) -> None:
    """Mask at once all that a pruner is to mask in the end.

    Raises:
        RuntimeError: If its scores tell nothing.
    """
    pruner.global_step, pruner.completed_pruned_cnt = pruner.end_step, pruner.total_prune_cnt
    pruner.on_step_begin(pruner.end_step)
    check_count(pruner)


def check_same_masks(pruners: Iterable[Pruner]) -> None:
    """Check that all processes mask the same units.

    Raises:
        RuntimeError: If they do not.
    """
    masks = {name: torch.nonzero(mask).flatten().tolist() for p in pruners for name, mask in _masks(p).items()}
    check_same("pruning_config: the units that stay", masks)


def kept_units(pruners: Iterable[Pruner], model: PreTrainedModel) -> Selection:
    """Return what the masks of some pruners leave of each of a model's layers."""
    heads: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for pruner in pruners:
        (heads if prunes_heads(pruner) else inputs).update(_masks(pruner))
    names = {module: name for name, module in model.named_modules()}
    blocks = Encoder(model).blocks
    return Selection(
        [_kept(heads.get(names[block.attention_output], torch.ones(block.num_heads))) for block in blocks],
        [_kept(inputs.get(names[block.ffn_out], torch.ones(block.num_neurons))) for block in blocks],
    )


def _masks(pruner: Pruner) -> dict[str, Tensor]:
    """Return what a pruner keeps: of a layer's heads (heads,), or of the inputs of a matrix (inputs,)."""
    if prunes_heads(pruner):
        return {name: mask.flatten().bool().cpu() for name, mask in pruner.head_masks.items()}
    return {name: mask.bool().any(0).cpu() for name, mask in pruner.masks.items()}


def _kept(mask: Tensor) -> list[int]:
    kept: list[int] = torch.nonzero(mask).flatten().tolist()
    return kept or [0]  # of a layer without any, a masked unit: it changes nothing


def save_state(pruners: list[Pruner], path: Path) -> None:
    """Write all that pruners must not forget into a safetensors file."""
    tensors, numbers = {}, []
    for index, pruner in enumerate(pruners):
        scores = pruner.criterion.scores if hasattr(pruner, "criterion") else {}
        parts = {name: getattr(pruner, name, {}) for name in _TENSORS} | {"scores": scores}
        for part, values in parts.items():
            tensors.update({f"{index}/{part}/{name}": value.clone().contiguous() for name, value in values.items()})
        own = {name: getattr(pruner, name) for name in _NUMBERS if hasattr(pruner, name)}
        numbers.append([own, getattr(pruner.pattern, "keep_mask_layers", {})])
    save_file(tensors, path, metadata={"settings": _settings(pruners), "numbers": json.dumps(numbers)})


def restore_state(pruners: list[Pruner], path: Path) -> None:
    """Read what `save_state` wrote back into pruners that were made alike.

    Raises:
        ValueError: If there is no such file, or it belongs to other settings.
    """
    if not path.exists():
        raise ValueError(f"resume_from: {path} does not exist; allowed: a checkpoint that was saved while INC pruned")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        if metadata["settings"] != _settings(pruners):
            raise ValueError(f"resume_from: {path} belongs to other settings; allowed: those of the interrupted run")
        for pruner, (numbers, keep_mask_layers) in zip(pruners, json.loads(metadata["numbers"]), strict=True):
            vars(pruner).update(numbers)
            if hasattr(pruner.pattern, "keep_mask_layers"):
                pruner.pattern.keep_mask_layers = keep_mask_layers
        for key in file.keys():  # noqa: SIM118
            index, part, name = key.split("/", 2)
            pruner = pruners[int(index)]
            holder = pruner.criterion if part == "scores" else pruner
            device = next(iter(pruned_linears(pruner).values())).weight.device
            getattr(holder, part)[name] = file.get_tensor(key).to(device)


def _settings(pruners: Iterable[Pruner]) -> str:
    """Describe what a state belongs to: settings, and layers with their shapes."""
    return json.dumps(
        [
            [{name: pruner.config[name] for name in _SETTINGS}]
            + [[name, list(linear.weight.shape)] for name, linear in pruned_linears(pruner).items()]
            for pruner in pruners
        ]
    )
