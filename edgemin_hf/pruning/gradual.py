"""Gradual pruning: units are masked a few at a time while training goes on, and removed when it is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.masks import masked
from edgemin_hf.pruning.saliency import Saliency, add_weight_products, mask_gradients, no_scores, random_saliency
from edgemin_hf.pruning.selection import Costs, select

PRUNING_STATE = "pruning.safetensors"
"""File of a checkpoint that holds what a pruner must not forget."""

_COSTS = "costs."

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all processes."""


def costs_state(checkpoint: Path) -> dict[str, Tensor]:
    """Return what a checkpoint keeps of the costs that its run counts: `Costs.state`."""
    state = load_file(checkpoint / PRUNING_STATE)
    return {name.removeprefix(_COSTS): value for name, value in state.items() if name.startswith(_COSTS)}


class GradualPruner(TrainerCallback):
    """Mask the least salient units of a model, in rounds, by the saliency of the training steps since the last round.

    A unit that is masked stays so. The masks multiply the activations that the attention's output and the second
    feed-forward matrix read, so a model with masks computes what it will compute without the units.

    Args:
        config: What is to go, and when.
        model: The model; hooks are put on it when training begins.
        costs: The costs that a budget counts, if there is one.
        reduce: Sums scores over all processes.

    Attributes:
        resume_from: Checkpoint that training goes on from; None for a run of its own.
    """

    resume_from: Path | None = None

    def __init__(self, config: PruningConfig, model: PreTrainedModel, costs: Costs | None, reduce: Reduce) -> None:
        self.config, self.model, self.costs, self.reduce = config, model, costs, reduce
        self.scores = no_scores(model)
        # For each layer the masks of its heads and of its neurons.
        self.masks = [
            tuple(torch.ones(len(scores), device=model.device) for scores in layer)
            for layer in zip(self.scores.heads, self.scores.neurons, strict=True)
        ]
        self._progress = 0.0
        self._hooks = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Put the masks on the model, as the checkpoint kept them if there is one."""
        if self.resume_from is not None:
            self._load(load_file(self.resume_from / PRUNING_STATE), keep_scores=state.is_world_process_zero)
        if self.config.saliency in ("taylor", "fisher"):
            self._hooks.enter_context(mask_gradients(self.model, self._add))
        blocks = Encoder(self.model).blocks
        pairs = [zip((b.attention_output, b.ffn_out), m, strict=True) for b, m in zip(blocks, self.masks, strict=True)]
        self._hooks.enter_context(masked(chain.from_iterable(pairs)))

    def _add(self, layer: int, kind: int, gradients: Tensor) -> None:
        amounts = gradients.abs() if self.config.saliency == "taylor" else gradients.square()
        (self.scores.heads, self.scores.neurons)[kind][layer] += amounts.sum(0).cpu()

    def on_pre_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Score units by their weights' gradients, where that is the saliency."""
        if self.config.saliency == "taylor_weights":
            add_weight_products(self.model, self.scores)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Mask more units where a round is due."""
        progress = self.config.progress(state.global_step / state.max_steps)
        if progress > self._progress:
            self._mask_more(progress)

    def _mask_more(self, progress: float) -> None:
        scores = self._summed()
        if self.config.saliency == "random":
            scores = random_saliency(self.model, self.config.pruning_seed)
        for masks, layer in zip(self.masks, zip(scores.heads, scores.neurons, strict=True), strict=True):
            for mask, of_units in zip(masks, layer, strict=True):
                of_units[mask.cpu() == 0] = -1  # goes first, and so stays masked
        kept = select(self.model, scores, self.config, self.costs, progress)
        for masks, units in zip(self.masks, zip(kept.heads, kept.neurons, strict=True), strict=True):
            for mask, left in zip(masks, units, strict=True):
                mask.zero_()[list(left)] = 1
        self.scores, self._progress = no_scores(self.model), progress

    def _summed(self) -> Saliency:
        """Return the scores of all processes together."""
        return Saliency(
            *([self.reduce(score.clone()) for score in k] for k in (self.scores.heads, self.scores.neurons))
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write masks, scores and measured costs into the checkpoint."""
        tensors = self._state(self._summed())
        if state.is_world_process_zero:
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / PRUNING_STATE)

    def _state(self, scores: Saliency) -> dict[str, Tensor]:
        state = {"progress": torch.tensor(self._progress, dtype=torch.float64)}
        if self.costs is not None:
            state |= {f"{_COSTS}{name}": value for name, value in self.costs.state().items()}
        for layer, (heads, neurons) in enumerate(self.masks):
            state |= {f"{layer}.heads.mask": heads, f"{layer}.heads.scores": scores.heads[layer]}
            state |= {f"{layer}.neurons.mask": neurons, f"{layer}.neurons.scores": scores.neurons[layer]}
        return state

    def _load(self, state: dict[str, Tensor], keep_scores: bool) -> None:
        self._progress = float(state["progress"])
        for name, current in self._state(self.scores).items():
            # The scores are of all processes: the first takes them up.
            if name.endswith("mask") or (name.endswith("scores") and keep_scores):
                current.copy_(state[name])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the masks off the model again."""
        if self._progress < 1:  # the last round was due when training was over
            self._mask_more(1.0)
        self._hooks.close()

    def selection(self, model: PreTrainedModel) -> Selection:
        """Return what the masks leave of each layer of the model."""
        kept = [[torch.nonzero(mask).flatten().tolist() for mask in masks] for masks in self.masks]
        return Selection([heads for heads, _ in kept], [neurons for _, neurons in kept])
