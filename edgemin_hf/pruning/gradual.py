"""Gradual pruning: units are masked a few at a time while training goes on, and removed when it is done."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection
from edgemin_hf.pruning.best import check_best_can_be_final, forget_best
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.feasible import check_rounds
from edgemin_hf.pruning.masks import masked
from edgemin_hf.pruning.saliency import Saliency, add_terms, no_scores, over_processes, random_saliency, terms_of
from edgemin_hf.pruning.selection import Costs, select
from edgemin_hf.utils.processes import check_same, summed

PRUNING_STATE = "pruning.safetensors"
"""File of a checkpoint that holds what a pruner must not forget."""

_COSTS = "costs."
_logger = logging.getLogger(__name__)


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

    Attributes:
        resume_from: Checkpoint that training goes on from; None for a run of its own.
    """

    resume_from: Path | None = None

    def __init__(self, config: PruningConfig, model: PreTrainedModel, costs: Costs | None) -> None:
        self.config, self.model, self.costs = config, model, costs
        self.scores = no_scores(model)
        # For each layer the masks of its heads and of its neurons.
        self.masks = [
            tuple(torch.ones(len(scores), device=model.device) for scores in layer)
            for layer in zip(self.scores.heads, self.scores.neurons, strict=True)
        ]
        self._progress = 0.0
        self._terms = terms_of(model, config.saliency)
        self._examples, self._scale = 0, 1.0
        self._scored = torch.zeros(())  # examples since the last round
        self._reach_checked = False
        self._hooks, self._collecting = ExitStack(), ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Put the masks on the model, as the checkpoint kept them if there is one.

        Raises:
            ValueError: If the training has no step between the schedule's start and end, or the best model is wanted
                and none can have the final masks.
        """
        check_rounds(self.config, state.max_steps)
        steps = range(int(self.config.end * state.max_steps), state.max_steps + 1)
        last = next(step for step in steps if self.config.progress(step / state.max_steps) == 1)
        check_best_can_be_final(args, state, last)
        if self.resume_from is not None:
            self._load(load_file(self.resume_from / PRUNING_STATE), keep_scores=state.is_world_process_zero)
        if self.config.saliency != "random" and self._progress < 1:
            self._collecting.enter_context(self._terms.collected())
        blocks = Encoder(self.model).blocks
        pairs = [zip((b.attention_output, b.ffn_out), m, strict=True) for b, m in zip(blocks, self.masks, strict=True)]
        self._hooks.enter_context(masked(chain.from_iterable(pairs)))

    def watch(self, loss: Tensor, examples: int) -> None:
        """Note of what the next backward pass is.

        Args:
            loss: The loss, a mean over the batch's examples, before anything multiplies it: accumulation, a scaler.
            examples: How many these are.
        """
        if loss.requires_grad:
            self._examples = examples
            loss.register_hook(self._note_scale)

    def _note_scale(self, gradient: Tensor) -> None:
        self._scale = float(gradient)

    def after_backward(self, *, complete: bool) -> None:
        """Score units by a backward pass, before anything is clipped.

        Args:
            complete: Whether an optimizer step follows.
        """
        if self.config.saliency == "random" or self._progress == 1:
            return
        # Nothing where the batch counted for nothing, as one that a loader repeated.
        terms = self._terms.take(self._examples / self._scale if self._scale else 0.0)
        if terms is not None and self._scale:
            add_terms(self.scores, terms, self.config.saliency)
            self._scored += self._examples
        if complete and not self._reach_checked and float(summed(self._scored)):
            self._summed()
            self._reach_checked = True

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Mask more units where a round is due."""
        if self._progress < 1:
            forget_best(state)
        progress = self.config.progress(state.global_step / state.max_steps)
        if progress > self._progress:
            self._mask_more(progress)

    def _mask_more(self, progress: float) -> None:
        if self.config.saliency == "random":
            scores = random_saliency(self.model, self.config.pruning_seed)
        elif float(summed(self._scored)):
            scores = self._summed()
        else:
            return  # fp16 overflowed in all steps since the last round: it is due again at the next one
        for masks, layer in zip(self.masks, zip(scores.heads, scores.neurons, strict=True), strict=True):
            for mask, of_units in zip(masks, layer, strict=True):
                of_units[mask.cpu() == 0] = -1  # goes first, and so stays masked
        kept = select(self.model, scores, self.config, self.costs, progress)
        check_same("pruning_config: the units that stay", kept.plain())
        for masks, units in zip(self.masks, zip(kept.heads, kept.neurons, strict=True), strict=True):
            for mask, left in zip(masks, units, strict=True):
                mask.zero_()[list(left)] = 1
        self.scores, self._progress = no_scores(self.model), progress
        self._scored.zero_()
        self._silence()
        if progress == 1:
            self._collecting.close()

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Keep what reads masked units at zero, which an optimizer's momentum would move."""
        if self._progress > 0:
            self._silence()

    @torch.no_grad()
    def _silence(self) -> None:
        """Zero the columns that read masked units: the grid of a quantised row must not change when they are removed.

        Nothing else sees them.
        """
        for block, masks in zip(Encoder(self.model).blocks, self.masks, strict=True):
            for linear, mask in zip((block.attention_output, block.ffn_out), masks, strict=True):
                linear.weight.mul_(mask.to(linear.weight).repeat_interleave(linear.in_features // len(mask)))

    def _summed(self) -> Saliency:
        """Return the scores of all processes together."""
        return over_processes(self.scores, self.config.saliency)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write masks, scores and measured costs into the checkpoint."""
        tensors = self._state(
            Saliency(*([summed(score) for score in kind] for kind in (self.scores.heads, self.scores.neurons))),
            summed(self._scored),
        )
        if state.is_world_process_zero:
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / PRUNING_STATE)
        if self._progress < 1:
            forget_best(state)

    def _state(self, scores: Saliency, scored: Tensor) -> dict[str, Tensor]:
        state = {"progress": torch.tensor(self._progress, dtype=torch.float64), "examples.scores": scored}
        if self.costs is not None:
            state |= {f"{_COSTS}{name}": value for name, value in self.costs.state().items()}
        for layer, (heads, neurons) in enumerate(self.masks):
            state |= {f"{layer}.heads.mask": heads, f"{layer}.heads.scores": scores.heads[layer]}
            state |= {f"{layer}.neurons.mask": neurons, f"{layer}.neurons.scores": scores.neurons[layer]}
        return state

    def _load(self, state: dict[str, Tensor], keep_scores: bool) -> None:
        self._progress = float(state["progress"])
        for name, current in self._state(self.scores, self._scored).items():
            # The scores are of all processes: the first takes them up.
            if name in state and (name.endswith("mask") or (name.endswith("scores") and keep_scores)):
                current.copy_(state[name])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take the masks off the model again.

        Raises:
            ValueError: If units are still to go, and no step tells which.
        """
        if self._progress < 1:  # the last round was due when training was over, or somebody ended it before
            if state.global_step < self.config.end * state.max_steps:
                _logger.warning(
                    "training ended at step %d of %d, before the last units had gone (end: %g): they go now, and "
                    "nothing is trained after it",
                    state.global_step, state.max_steps, self.config.end,
                )  # fmt: skip
            self._mask_more(1.0)
        self._collecting.close()
        self._hooks.close()
        if self._progress < 1:
            raise ValueError(f"saliency: {self.config.saliency}, but no step since the last round had finite gradients")

    def selection(self, model: PreTrainedModel) -> Selection:
        """Return what the masks leave of each layer of the model."""
        kept = [[torch.nonzero(mask).flatten().tolist() for mask in masks] for masks in self.masks]
        return Selection([heads for heads, _ in kept], [neurons for _, neurons in kept])
