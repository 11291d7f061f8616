"""Structured pruning by Intel Neural Compressor (INC) 3.7: its criteria and schedules, driven by a Trainer's callbacks.

INC scores heads and neurons and masks their weights while the model trains; the masks say what stays, and `surgery.py`
removes the rest. INC is imported when it is asked for, never with this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.surgery import Selection
from edgemin_hf.neural_compressor.guest import write_inc_config
from edgemin_hf.neural_compressor.protocols import Pruner
from edgemin_hf.neural_compressor.pruner_state import check_count, kept_units, restore_state, save_state, score_weights
from edgemin_hf.neural_compressor.pruners import own_pruners, pruning_steps, users_pruners
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.pruning.gradual import PRUNING_STATE

if TYPE_CHECKING:
    from neural_compressor.config import WeightPruningConfig


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
            ValueError: If INC would not prune all that it is asked to, or a resumed training lacks INC's state.
        """
        if isinstance(self.config, PruningConfig):
            self._pruners = own_pruners(self.config, model, *pruning_steps(self.config, state.max_steps))
        else:
            self._pruners = users_pruners(self.config, model, state.max_steps)
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
        for pruner in self._pruners or ():
            pruner.on_step_begin(state.global_step)
            if isinstance(self.config, PruningConfig) and state.global_step == pruner.end_step:
                check_count(pruner)

    def on_pre_optimizer_step(self, *args: object, **kwargs: object) -> None:
        """Score the weights by their gradients.

        Raises:
            ValueError: If the loss gives a layer none.
        """
        for pruner in self._pruners or ():
            score_weights(pruner)

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


def select_once(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    loss_of: Callable[[Mapping[str, Tensor]], Tensor],
    config: PruningConfig,
    reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Selection:
    """Select what stays in one shot, by INC's scores over some batches; the weights are left as they are.

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
    pruners = own_pruners(config, model, 1, 1, 1)
    was_training = model.training
    model.eval()
    try:
        for batch in () if config.saliency == "magnitude" else batches:
            loss_of(batch).backward()
            for pruner in pruners:
                score_weights(pruner)
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
        check_count(pruner)
    return kept_units(pruners, model)


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
