"""INC's pruners of heads and neurons, made for a model: what it is told, and what is put right in it.

Neither its search for layers nor its own removal is used: they lose layers silently, and draw channels by chance.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.surgery import check_prunable
from edgemin_hf.neural_compressor.guest import importing_inc
from edgemin_hf.neural_compressor.protocols import Attention, GetMasks, Pruner, Tensors, prunes_heads
from edgemin_hf.pruning.config import INC_SALIENCIES, PruningConfig

if TYPE_CHECKING:
    from neural_compressor.config import WeightPruningConfig

_DECAYS = {"one_shot": "linear", "iterative": "linear", "cubic": "cube"}  # see _cubic


def pruning_steps(config: PruningConfig, steps: int) -> tuple[int, int, int]:
    """Return INC's start_step, end_step and pruning_frequency. Iterative, INC removes nothing at the first."""
    first, last = max(1, round(config.start * steps)), min(round(config.end * steps), steps - 1)
    if config.schedule == "one_shot":
        last = first
    if not first <= last < steps:
        raise ValueError(f"start: {config.start} of {steps} training steps; allowed: where steps follow, before end")
    if first == last:
        return first, first, 1
    frequency = (last - first) // config.rounds
    if frequency < 1:
        raise ValueError(f"rounds: {config.rounds}; allowed: at most the {last - first} steps between start and end")
    return first, first + frequency * config.rounds, frequency


def own_pruners(config: PruningConfig, model: PreTrainedModel, start: int, end: int, frequency: int) -> list[Pruner]:
    """Make one INC pruner for the heads, and one for the neurons, of each layer, with what it is to leave."""
    if config.saliency not in INC_SALIENCIES:
        raise ValueError(f"saliency: {config.saliency}; allowed of INC: {', '.join(INC_SALIENCIES)}")
    check_prunable(model.config, heads=config.head_sparsity > 0)
    inc, encoder, names = _import_inc(), Encoder(model), _names(model)
    parts: list[tuple[Layer, str, int, int]] = []
    for block in encoder.blocks:
        parts.append((block, "mha", block.num_heads, config.kept_heads(block.num_heads)))
        parts.append((block, "channelx1", block.num_neurons, config.kept_neurons(block.num_neurons)))
    common: dict[str, object] = {
        "pruning_type": config.saliency,
        "criterion_type": config.saliency,
        "pruning_scope": "local",
    }
    common |= {"start_step": start, "end_step": end, "pruning_frequency": frequency}
    common |= {"sparsity_decay_type": _DECAYS[config.schedule]}
    made: list[Pruner] = []
    for block, pattern, units, kept in parts:
        if kept == units:
            continue
        # INC removes int(units * sparsity): half a unit more keeps rounding away. Above its limit it would stop.
        sparsity = (units - kept + 0.5) / units
        part = {"pattern": pattern, "target_sparsity": sparsity, "max_sparsity_ratio_per_op": sparsity}
        (info,) = inc.process(inc.config(pruning_configs=[{**common, **part}]))
        found = _attention(encoder, names, [block]) if pattern == "mha" else {names[block.ffn_out]: block.ffn_out}
        pruner = _made(inc.pruner(info, found), found)
        pruner.units_to_keep = kept
        if config.schedule == "cubic":
            pruner.scheduler.update_sparsity_ratio = _cubic
        pruner.pattern.get_masks = _ranked(pruner.pattern.get_masks)
        made.append(pruner)
    return made


def users_pruners(config: WeightPruningConfig, model: PreTrainedModel, steps: int) -> list[Pruner]:
    """Make the pruners of an INC configuration; for heads with our names of all layers, since INC's search traces."""
    inc = _import_inc()
    made: list[Pruner] = []
    # INC writes into what it is given, and its default for local settings is one list for all configurations.
    for info in inc.process(copy.deepcopy(config)):
        if info["pruning_type"].removesuffix("_progressive") not in (*INC_SALIENCIES, "snip", "pattern_lock"):
            allowed = f"{', '.join(INC_SALIENCIES)}, snip, these with _progressive, pattern_lock"
            raise ValueError(f"pruning_type: {info['pruning_type']}; allowed: {allowed}")
        if info["end_step"] >= steps:
            raise ValueError(f"end_step: {info['end_step']}; allowed: below the {steps} training steps")
        if "mha" in info["pattern"]:
            if info["criterion_type"] != info["pruning_type"]:  # which INC does not look at, for heads
                raise ValueError(
                    f"criterion_type: {info['criterion_type']}; allowed: as pruning_type, {info['pruning_type']}"
                )
            check_prunable(model.config, heads=True)
            encoder = Encoder(model)
            found = _attention(encoder, _names(model), encoder.blocks)
        else:
            asked = list(info["op_names"] or [])
            found = inc.find(info, model)
            _check_names(asked, info, found, model)
        made.append(_made(inc.pruner(info, found), found))
    return made


def _names(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules()}


def _attention(encoder: Encoder, names: Mapping[nn.Module, str], blocks: Iterable[Layer]) -> list[Attention]:
    """Describe the attention of some layers as INC's own search would, had it found them."""
    found: list[Attention] = []
    for block in blocks:
        if encoder.family.fused is not None:
            raise ValueError(
                f"saliency: INC's, for heads of model type {encoder.config.model_type!r}, whose {names[block.q]} is "
                "all three projections in one; allowed: one that is not INC's"
            )
        qkv, ffn = [block.q, block.k, block.v], [block.attention_output]
        # INC reads three attributes of the attention module, by names that not every family uses.
        attributes = SimpleNamespace(
            num_attention_heads=block.num_heads,
            attention_head_size=encoder.head_size,
            all_head_size=block.attention_width,
        )
        found.append(
            {
                "qkv_name": [names[linear] for linear in qkv],
                "qkv_module": qkv,
                "ffn_name": [names[linear] for linear in ffn],
                "ffn_module": ffn,
                "mha_name": [names[block.attention_output]],
                "mha_module": [attributes],
            }
        )
    return found


def _check_names(
    asked: list[str], info: Mapping[str, object], found: Mapping[str, nn.Linear], model: nn.Module
) -> None:
    """Refuse names of layers that INC passed over, which it does without a word."""
    for pattern in asked:
        matching = [name for name in _names(model).values() if re.search(pattern, name)]
        if not set(matching) & set(found):
            raise ValueError(
                f"op_names: {pattern}, of which INC prunes nothing; allowed: layers of {info['pruning_op_types']} "
                "beside the last of the model and those of excluded_op_names"
            )
    if not found:
        raise ValueError("op_names, excluded_op_names: leave INC no layer to prune; allowed: some")


def _made(pruner: Pruner, found: Sequence[Attention] | Mapping[str, nn.Linear]) -> Pruner:
    """Check that a pruner holds, and can prune, all that it was to, and return it."""
    if isinstance(found, Mapping):
        wanted = set(found)
    else:
        wanted = {name for part in found for name in (*part["qkv_name"], *part["ffn_name"])}
    if prunes_heads(pruner):
        lost = wanted - set(pruner.linear_layers)
        # They begin as floats, which would turn bfloat16 weights into floats too.
        pruner.head_masks = {name: mask.bool() for name, mask in pruner.head_masks.items()}
    else:
        lost = (wanted - set(pruner.masks)) | set(pruner.pattern.invalid_layers)
    if lost:
        raise ValueError(f"{', '.join(sorted(lost))}: not pruned by INC; allowed: layers that its pattern divides")
    return pruner


def _cubic(sparsity: float, done: int, rounds: int, *_: object) -> float:
    """Zhu and Gupta 2017 (arXiv 1710.01878), equation 1: many go at first. INC's "cube" is the opposite."""
    return sparsity * (1 - (1 - done / rounds) ** 3)


def _ranked(get_masks: GetMasks) -> GetMasks:
    """Let INC see ranks, masked units first.

    It removes all units that tie, and in bfloat16 many of 3072 neurons do; and by their gradients, units that it has
    zeroed come back.
    """

    def masks(scores: Tensors, sparsity: float, before: Tensors) -> Tensors:
        ranks = {}
        for name, score in scores.items():
            if not score.isfinite().all() or score.min() == score.max():
                raise RuntimeError(f"INC's scores of {name} tell nothing: they are all the same, or not finite")
            gone = ~before[name].bool().any(0).to(score.device)
            order = score.flatten().masked_fill(gone, -torch.inf).argsort(stable=True)
            ranks[name] = order.argsort().double().view(score.shape)
        return get_masks(ranks, sparsity, before)

    return masks


def _import_inc() -> SimpleNamespace:
    with importing_inc("pruning_config: INC's saliency"):
        from neural_compressor import config
        from neural_compressor.compression.pruner import pruners, utils
    return SimpleNamespace(
        config=config.WeightPruningConfig,
        process=utils.process_config,
        find=utils.parse_to_prune,
        pruner=pruners.get_pruner,
    )
