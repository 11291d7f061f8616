"""Structured pruning by Intel Neural Compressor (INC) 3.7: its criteria and schedules, driven by a Trainer's callbacks.

INC scores heads and neurons and masks their weights while the model trains; the masks say what stays, and `surgery.py`
removes the rest. INC is imported when it is asked for, never with this package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection
from edgemin_hf.neural_compressor.guest import write_inc_config
from edgemin_hf.neural_compressor.protocols import Pruner
from edgemin_hf.neural_compressor.pruner_state import (
    check_count,
    check_same_masks,
    kept_units,
    mask_all,
    pruned_linears,
    restore_state,
    save_state,
    score_weights,
)
from edgemin_hf.neural_compressor.pruners import own_pruners, pruning_steps, users_pruners
from edgemin_hf.pruning.best import check_best_can_be_final, forget_best
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.gradual import PRUNING_STATE
from edgemin_hf.utils.batches import count_rows
from edgemin_hf.utils.processes import joined, several_processes, summed

if TYPE_CHECKING:
    from neural_compressor.config import WeightPruningConfig

_LOGGER = logging.getLogger(__name__)


class IncPruner(TrainerCallback):
    """Let INC prune a Trainer's model while it trains; the model stays the same object.

    The trainer calls `after_backward` before it clips gradients.

    By the end of the pruning steps every layer has lost, in its masks, exactly what a `PruningConfig` asks for. An
    INC configuration, what Optimum Intel's INCTrainer took, is used as it is. Add this callback before others that
    mark a checkpoint as complete.

    Args:
        config: What to prune, by which criterion and when.
        scale: Returns what gradients are multiplied with, as with fp16.

    Attributes:
        resume_from: The checkpoint to take INC's state from; set it before a training that resumes.
    """

    def __init__(self, config: PruningConfig | WeightPruningConfig, scale: Callable[[], float] = lambda: 1.0) -> None:
        self.config = config
        self._scale = scale
        self.resume_from: Path | None = None
        self._pruners: list[Pruner] | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: PreTrainedModel,
        **kwargs: object,
    ) -> None:
        """Make INC's pruners: its masks live on the device where the model is by now.

        Raises:
            ValueError: If INC would not prune all that it is asked to, a resumed training lacks INC's state, or the
                best model is wanted and none can have the final masks.
        """
        if isinstance(self.config, PruningConfig):
            self._pruners = own_pruners(self.config, model, *pruning_steps(self.config, state.max_steps))
        else:
            self._pruners = users_pruners(self.config, model, state.max_steps)
        self._last = max((pruner.end_step for pruner in self._pruners), default=-1)
        check_best_can_be_final(args, state, self._last)
        if self.resume_from is not None:
            restore_state(self._pruners, Path(self.resume_from) / PRUNING_STATE)
        if any(pruner.global_step != state.global_step for pruner in self._pruners):
            raise ValueError(
                f"resume_from: {self.resume_from}, but training goes on from step {state.global_step}; allowed: the "
                "checkpoint of that step"
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Update the masks where the schedule says so.

        Raises:
            RuntimeError: If scores tell nothing, or the last update left another number of units than was asked for.
        """
        if state.global_step <= self._last:
            forget_best(state)
        due = [pruner for pruner in self._pruners or () if _is_due(pruner)]
        for pruner in due:
            _average(pruner)
        for pruner in self._pruners or ():
            pruner.on_step_begin(state.global_step)
            if isinstance(self.config, PruningConfig) and state.global_step == pruner.end_step:
                check_count(pruner)
        if due:
            check_same_masks(due)

    def watch(self, loss: Tensor, examples: int) -> None:
        """Note of what the next backward pass is: INC scores the gradient of a step."""

    def after_backward(self, *, complete: bool) -> None:
        """Score the weights by their gradients, before anything is clipped.

        Args:
            complete: Whether an optimizer step follows.

        Raises:
            ValueError: If the loss gives a layer none.
        """
        for pruner in self._pruners or () if complete else ():
            score_weights(pruner, self._scale())

    def on_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Mask the weights that the optimizer has just moved."""
        for pruner in self._pruners or ():
            pruner.on_after_optimizer_step()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Tell INC of the step's end."""
        for pruner in self._pruners or ():
            pruner.on_step_end()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Write INC's state into the checkpoint: without it, scores would begin again at zero, which masks all."""
        if args.should_save:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            save_state(self._pruners or [], folder / PRUNING_STATE)
        if state.global_step <= self._last:
            forget_best(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Mask what is still to go, where somebody ended the training before its time."""
        if not isinstance(self.config, PruningConfig) or state.global_step > self._last:
            return
        _LOGGER.warning(
            "training ended at step %d of %d, before the last units had gone (step %d): they go now, and nothing is "
            "trained after it",
            state.global_step, state.max_steps, self._last,
        )  # fmt: skip
        for pruner in self._pruners or ():
            _average(pruner)
            mask_all(pruner)
        check_same_masks(self._pruners or ())

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
                check_count(pruner)
        selection = kept_units(self._pruners, model)
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


def _is_due(pruner: Pruner) -> bool:
    due = range(pruner.start_step, pruner.end_step + 1, pruner.pruning_frequency)
    return pruner.global_step in due


def _average(pruner: Pruner) -> None:
    """Let all processes have the same scores."""
    if several_processes() and hasattr(pruner, "criterion"):
        scores = pruner.criterion.scores
        scores.update({name: summed(score) / PartialState().num_processes for name, score in scores.items()})


def select_once(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
    config: PruningConfig,
    accumulation: int = 1,
) -> Selection:
    """Select what stays in one shot, by INC's scores over some batches; the weights are left as they are.

    Args:
        model: The model; scored in evaluation mode, so that dropout adds no noise. Its gradients are cleared.
        batches: Batches of its inputs, this process's share; of no use for "magnitude". "snip_momentum" decays by 0.9
            with each step, so the last ones count most; "gradient" is the absolute value of the gradient over all
            examples.
        loss_of: Computes the loss of a batch, a mean over its examples.
        config: What to remove, and by which criterion.
        accumulation: Batches of a step in each process; its gradient is the mean over the examples of all of them.

    Raises:
        ValueError: If INC can't prune the model, or the loss does not reach a layer.
        RuntimeError: If the scores tell nothing, as without batches.
    """
    pruners = own_pruners(config, model, 1, 1, 1)
    was_training = model.training
    model.eval()
    try:
        steps = [] if config.saliency == "magnitude" else list(_steps(batches, accumulation))
        sizes = [summed(torch.tensor(float(sum(map(count_rows, step))))).item() for step in steps]
        for step, size in zip(steps, sizes, strict=True):
            of = sum(sizes) if config.saliency == "gradient" else size
            for batch in step:
                (loss_of(batch) * (count_rows(batch) / of)).backward()
            if config.saliency == "gradient" and step is not steps[-1]:
                continue  # INC takes the last gradient alone: let it add up
            _share_gradients(pruners)
            for pruner in pruners:
                score_weights(pruner)
            model.zero_grad()
    finally:
        model.zero_grad()
        model.train(was_training)
    for pruner in pruners:
        pruner.mask_weights = lambda: None
        mask_all(pruner)
    return kept_units(pruners, model)


def _steps(batches: Iterable[Mapping[str, Tensor]], accumulation: int) -> Iterator[Sequence[Mapping[str, Tensor]]]:
    """Yield the batches of each step, as many steps in all processes: one that has read all takes part with none."""
    own = list(batches)
    count = int(joined(torch.tensor([[-(-len(own) // accumulation)]])).max())
    for step in range(count):
        yield own[step * accumulation : (step + 1) * accumulation]


def _share_gradients(pruners: Iterable[Pruner]) -> None:
    """Sum the gradients of all processes; a layer that none of them reached keeps none."""
    if not several_processes():
        return
    weights = {id(linear.weight): linear.weight for p in pruners for linear in pruned_linears(p).values()}
    reached = summed(torch.tensor([float(weight.grad is not None) for weight in weights.values()]))
    for weight, anywhere in zip(weights.values(), reached.tolist(), strict=True):
        if anywhere:
            weight.grad = summed(torch.zeros_like(weight) if weight.grad is None else weight.grad)


def save_inc_config(config: PruningConfig | WeightPruningConfig, folder: str | Path) -> None:
    """Write `inc_config.json`, which Optimum Intel's INCTrainer puts beside a model, with its class.

    Args:
        config: What the model was pruned by.
        folder: The model's folder.
    """
    pruning: object = config
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
