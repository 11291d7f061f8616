"""The best model of a training that prunes on its way: only one that has the final masks can be it.

Units go until the schedule ends. What an earlier model was measured with is cut from it afterwards, so its metric is
none of what the training returns.
"""

from __future__ import annotations

from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy


def forget_best(state: TrainerState) -> None:
    """Let no evaluation until now count as the best one: `load_best_model_at_end` and early stopping begin anew."""
    state.best_metric = state.best_global_step = state.best_model_checkpoint = None


def check_best_can_be_final(args: TrainingArguments, state: TrainerState, last: int) -> None:
    """Check that the best model, where it is wanted, can be one from which no units go any more.

    Args:
        args: The trainer's arguments.
        state: Its state, when training begins.
        last: Number of steps after which the last units go.

    Raises:
        ValueError: If no evaluation follows that step.
    """
    if not args.load_best_model_at_end:
        return
    evaluated = state.max_steps  # as at the end of an epoch
    if args.eval_strategy == IntervalStrategy.STEPS:
        evaluated -= state.max_steps % int(state.eval_steps)
    if evaluated <= last:
        raise ValueError(
            f"load_best_model_at_end: true, but no evaluation follows step {last} of {state.max_steps}, when the last "
            "units go; expected an earlier end of the schedule, more steps, or smaller eval_steps"
        )
