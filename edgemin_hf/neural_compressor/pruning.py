"""Structured pruning by Intel Neural Compressor (INC) 3.7: its criteria and schedules, driven by a Trainer's callbacks.

INC scores heads and neurons and masks their weights while the model trains; the masks say what stays, and `surgery.py`
removes the rest. Neither its search for layers nor its own removal is used: they lose layers silently, and draw
channels by chance. INC is imported when it is asked for, never with this package.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.surgery import Selection, check_prunable
from edgemin_hf.neural_compressor.guest import importing_inc, write_inc_config
from edgemin_hf.pruning.config import INC_SALIENCIES, PruningConfig
from edgemin_hf.pruning.gradual import PRUNING_STATE

if TYPE_CHECKING:
    from neural_compressor.config import WeightPruningConfig

_DECAYS = {"one_shot": "linear", "iterative": "linear", "cubic": "cube"}  # see _cubic
_TENSORS = ("masks", "head_masks", "pre_masks", "progressive_masks")
_NUMBERS = (
    "global_step", "handled_global_step", "completed_pruned_cnt", "current_sparsity_ratio", "init_sparsity_ratio",
    "structured_update_step", "align_masks_flag",
)  # fmt: skip
_SETTINGS = (
    "pattern", "pruning_type", "target_sparsity", "start_step", "end_step", "pruning_frequency", "pruning_scope",
    "sparsity_decay_type",
)  # fmt: skip


class IncPruner(TrainerCallback):
    """Let INC prune a Trainer's model while it trains; the model stays the same object.

    By the end of the pruning steps every layer has lost, in its masks, exactly what a `PruningConfig` asks for. An
    INC configuration, what Optimum Intel's INCTrainer took, is used as it is. Add this callback before others that
    mark a checkpoint as complete.

    Args:
        config: What to prune, by which criterion and when.

    Attributes:
        resume_from: The checkpoint to take INC's state from; set it before a training that resumes.
    """

    def __init__(self, config: PruningConfig | WeightPruningConfig) -> None:
        self.config = config
        self.resume_from: Path | None = None
        self._pruners: list[Any] | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: Any,
    ) -> None:
        """Make INC's pruners: its masks live on the device where the model is by now.

        Raises:
            ValueError: If INC would not prune all that it is asked to, or a resumed training lacks INC's state.
        """
        if isinstance(self.config, PruningConfig):
            self._pruners = _own_pruners(self.config, model, *_window(self.config, state.max_steps))
        else:
            self._pruners = _users_pruners(self.config, model, state.max_steps)
        if self.resume_from is not None:
            _restore(self._pruners, Path(self.resume_from) / PRUNING_STATE)
        if any(pruner.global_step != state.global_step for pruner in self._pruners):
            raise ValueError(
                f"resume_from: {self.resume_from}, but training goes on from step {state.global_step}; allowed: the "
                "checkpoint of that step"
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the masks where the schedule says so.

        Raises:
            RuntimeError: If scores tell nothing, or the last update left another number of units than was asked for.
        """
        for pruner in self._pruners or ():
            pruner.on_step_begin(state.global_step)
            if isinstance(self.config, PruningConfig) and state.global_step == pruner.end_step:
                _check_count(pruner)

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Score the weights by their gradients.

        Raises:
            ValueError: If the loss gives a layer none.
        """
        for pruner in self._pruners or ():
            _score(pruner)

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Mask the weights that the optimizer has just moved."""
        for pruner in self._pruners or ():
            pruner.on_after_optimizer_step()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Tell INC of the step's end."""
        for pruner in self._pruners or ():
            pruner.on_step_end()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write INC's state into the checkpoint: without it, scores would begin again at zero, which masks all."""
        if args.should_save:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            _save(self._pruners or [], folder / PRUNING_STATE)

    def selection(self, model: PreTrainedModel) -> Selection:
        """Return what INC's masks leave of each layer, for `surgery.remove`.

        Args:
            model: The trained model.

        Raises:
            RuntimeError: If training ended before the last pruning step of a `PruningConfig`.
            ValueError: If the model's weights are not those that INC masked.
        """
        if self._pruners is None:
            raise ValueError("selection: asked for before training; allowed: after it")
        if isinstance(self.config, PruningConfig):
            for pruner in self._pruners or ():
                _check_count(pruner)
        selection = _selection(self._pruners, model)
        for index, block in enumerate(Encoder(model).blocks):
            for linear, kept, units in (
                (block.attention_output, selection.heads[index], block.num_heads),
                (block.ffn_out, selection.neurons[index], block.num_neurons),
            ):
                gone = torch.ones(units, dtype=torch.bool)
                gone[list(kept)] = False
                if linear.weight.detach().cpu().unflatten(1, (units, -1))[:, gone].any():
                    raise ValueError(f"model: layer {index} lacks INC's masks; allowed: the weights of the last step")
        return selection


def select_once(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
    config: PruningConfig,
    reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Selection:
    """Select what stays at once, by INC's scores over some batches; the weights are left as they are.

    Args:
        model: The model; scored in evaluation mode, so that dropout adds no noise. Its gradients are cleared.
        batches: Batches of its inputs; of no use for "magnitude". "snip_momentum" decays by 0.9 with each batch, so the
            last ones count most; "gradient" is the absolute value of the gradient summed over all.
        loss_of: Computes the loss of a batch.
        config: What to remove, and by which criterion.
        reduce: Sums a tensor over all processes.

    Raises:
        ValueError: If INC can't prune the model, or the loss does not reach a layer.
        RuntimeError: If the scores tell nothing, as without batches.
    """
    pruners = _own_pruners(config, model, 1, 1, 1)
    was_training = model.training
    model.eval()
    try:
        for batch in () if config.saliency == "magnitude" else batches:
            loss_of(batch).backward()
            for pruner in pruners:
                _score(pruner)
            if config.saliency != "gradient":  # which INC takes from the last batch alone: let it add up
                model.zero_grad()
    finally:
        model.zero_grad()
        model.train(was_training)
    for pruner in pruners:
        scores = pruner.criterion.scores
        scores.update({name: reduce(score) for name, score in scores.items()})
        pruner.mask_weights = lambda: None
        pruner.global_step = pruner.start_step
        pruner.on_step_begin(pruner.start_step)
        _check_count(pruner)
    return _selection(pruners, model)


def save_inc_config(config: PruningConfig | WeightPruningConfig, folder: str | Path) -> None:
    """Write `inc_config.json`, which Optimum Intel's INCTrainer puts beside a model, with its class.

    Args:
        config: What the model was pruned by.
        folder: The model's folder.
    """
    pruning: Any = config
    if isinstance(config, PruningConfig):
        asked = {"mha": config.head_sparsity, "channelx1": config.ffn_sparsity}
        parts = {pattern: sparsity for pattern, sparsity in asked.items() if sparsity}
        single = len(parts) == 1
        patterns, sparsities = list(parts), list(parts.values())
        pruning = {
            "approach": config.saliency,
            "pattern": patterns[0] if single else patterns,
            "sparsity": sparsities[0] if single else sparsities,
        }
    write_inc_config(folder, pruning=pruning)


def _import_inc() -> Any:
    with importing_inc("pruning_config: INC's saliency"):
        from neural_compressor import config
        from neural_compressor.compression.pruner import pruners, utils
    return SimpleNamespace(
        config=config.WeightPruningConfig,
        process=utils.process_config,
        find=utils.parse_to_prune,
        pruner=pruners.get_pruner,
    )


def _window(config: PruningConfig, steps: int) -> tuple[int, int, int]:
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


def _own_pruners(config: PruningConfig, model: PreTrainedModel, start: int, end: int, frequency: int) -> list[Any]:
    """Make one INC pruner for the heads, and one for the neurons, of each layer, with what it is to leave."""
    if config.saliency not in INC_SALIENCIES:
        raise ValueError(f"saliency: {config.saliency}; allowed of INC: {', '.join(INC_SALIENCIES)}")
    check_prunable(model.config, heads=config.head_sparsity > 0)
    inc, encoder, names = _import_inc(), Encoder(model), _names(model)
    parts: list[tuple[Layer, str, int, int]] = []
    for block in encoder.blocks:
        parts.append((block, "mha", block.num_heads, config.kept_heads(block.num_heads)))
        parts.append((block, "channelx1", block.num_neurons, config.kept_neurons(block.num_neurons)))
    common: dict[str, Any] = {
        "pruning_type": config.saliency,
        "criterion_type": config.saliency,
        "pruning_scope": "local",
    }
    common |= {"start_step": start, "end_step": end, "pruning_frequency": frequency}
    common |= {"sparsity_decay_type": _DECAYS[config.schedule]}
    made = []
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


def _users_pruners(config: WeightPruningConfig, model: PreTrainedModel, steps: int) -> list[Any]:
    """Make the pruners of an INC configuration; for heads with our names of all layers, since INC's search traces."""
    inc, made = _import_inc(), []
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


def _attention(encoder: Encoder, names: Mapping[nn.Module, str], blocks: Iterable[Layer]) -> list[dict[str, list[Any]]]:
    """Describe the attention of some layers as INC's own search would, had it found them."""
    found = []
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


def _check_names(asked: list[str], info: Mapping[str, Any], found: Mapping[str, Any], model: nn.Module) -> None:
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


def _made(pruner: Any, found: Any) -> Any:
    """Check that a pruner holds, and can prune, all that it was to, and return it."""
    if hasattr(pruner, "head_masks"):
        wanted = [name for part in found for name in (*part["qkv_name"], *part["ffn_name"])]
        lost = set(wanted) - set(pruner.linear_layers)
        # They begin as floats, which would turn bfloat16 weights into floats too.
        pruner.head_masks = {name: mask.bool() for name, mask in pruner.head_masks.items()}
    else:
        lost = (set(found) - set(pruner.masks)) | set(pruner.pattern.invalid_layers)
    if lost:
        raise ValueError(f"{', '.join(sorted(lost))}: not pruned by INC; allowed: layers that its pattern divides")
    return pruner


def _cubic(sparsity: float, done: int, rounds: int, *_: Any) -> float:
    """Zhu and Gupta 2017 (arXiv 1710.01878), equation 1: many go at first. INC's "cube" is the opposite."""
    return sparsity * (1 - (1 - done / rounds) ** 3)


def _ranked(get_masks: Callable[..., Any]) -> Callable[..., Any]:
    """Let INC see ranks, masked units first.

    It removes all units that tie, and in bfloat16 many of 3072 neurons do; and by their gradients, units that it has
    zeroed come back.
    """

    def masks(scores: Mapping[str, Tensor], sparsity: float, before: Mapping[str, Tensor]) -> Any:
        ranks = {}
        for name, score in scores.items():
            if not score.isfinite().all() or score.min() == score.max():
                raise RuntimeError(f"INC's scores of {name} tell nothing: they are all the same, or not finite")
            gone = ~before[name].bool().any(0).to(score.device)
            order = score.flatten().masked_fill(gone, -torch.inf).argsort(stable=True)
            ranks[name] = order.argsort().double().view(score.shape)
        return get_masks(ranks, sparsity, before)

    return masks


def _layers(pruner: Any) -> dict[str, nn.Linear]:
    return pruner.linear_layers if hasattr(pruner, "head_masks") else pruner.modules


def _score(pruner: Any) -> None:
    if pruner.config["criterion_type"] != "magnitude" and hasattr(pruner, "criterion"):
        for name, linear in _layers(pruner).items():
            if linear.weight.grad is None:
                raise ValueError(
                    f"saliency: {pruner.config['criterion_type']}, but the loss does not reach {name}; allowed: a loss "
                    "of the model's output beside it, such as task distillation, or magnitude"
                )
    pruner.on_before_optimizer_step()


def _masks(pruner: Any) -> dict[str, Tensor]:
    """Return what a pruner keeps: of a layer's heads (heads,), or of the inputs of a matrix (inputs,)."""
    if hasattr(pruner, "head_masks"):
        return {name: mask.flatten().bool().cpu() for name, mask in pruner.head_masks.items()}
    return {name: mask.bool().any(0).cpu() for name, mask in pruner.masks.items()}


def _check_count(pruner: Any) -> None:
    for name, mask in _masks(pruner).items():
        if int(mask.sum()) != pruner.units_to_keep:
            raise RuntimeError(
                f"INC keeps {int(mask.sum())} units of {name}, not {pruner.units_to_keep}, after "
                f"{pruner.global_step} steps: its pruning is not over"
            )


def _selection(pruners: Iterable[Any], model: PreTrainedModel) -> Selection:
    heads: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for pruner in pruners:
        (heads if hasattr(pruner, "head_masks") else inputs).update(_masks(pruner))
    names, blocks = _names(model), Encoder(model).blocks
    return Selection(
        [_kept(heads.get(names[block.attention_output], torch.ones(block.num_heads))) for block in blocks],
        [_kept(inputs.get(names[block.ffn_out], torch.ones(block.num_neurons))) for block in blocks],
    )


def _kept(mask: Tensor) -> list[int]:
    return torch.nonzero(mask).flatten().tolist() or [0]  # of a layer without any, a masked unit: it changes nothing


def _settings(pruners: Iterable[Any]) -> str:
    """Describe what a state belongs to: settings, and layers with their shapes."""
    return json.dumps(
        [
            [{name: pruner.config[name] for name in _SETTINGS}]
            + [[name, list(linear.weight.shape)] for name, linear in _layers(pruner).items()]
            for pruner in pruners
        ]
    )


def _save(pruners: list[Any], path: Path) -> None:
    tensors, numbers = {}, []
    for index, pruner in enumerate(pruners):
        scores = pruner.criterion.scores if hasattr(pruner, "criterion") else {}
        parts = {name: getattr(pruner, name, {}) for name in _TENSORS} | {"scores": scores}
        for part, values in parts.items():
            tensors.update({f"{index}/{part}/{name}": value.clone().contiguous() for name, value in values.items()})
        own = {name: getattr(pruner, name) for name in _NUMBERS if hasattr(pruner, name)}
        numbers.append([own, getattr(pruner.pattern, "keep_mask_layers", {})])
    save_file(tensors, path, metadata={"settings": _settings(pruners), "numbers": json.dumps(numbers)})


def _restore(pruners: list[Any], path: Path) -> None:
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
            device = next(iter(_layers(pruner).values())).weight.device
            getattr(holder, part)[name] = file.get_tensor(key).to(device)
