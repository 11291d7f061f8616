"""Early stopping that a killed run takes up: it stops at the step at which it would have stopped otherwise."""

from __future__ import annotations

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStopping(EarlyStoppingCallback):
    """Stop as `transformers` does, after so many evaluations in a row without a new best one.

    Its own counts from 0 after a resume (`restore_callback_states_from_checkpoint` is off), and trains on from a
    checkpoint at which it had stopped, since every training begins as one that is not to stop.

    Args:
        patience: How many evaluations.
    """

    def __init__(self, patience: int) -> None:
        super().__init__(early_stopping_patience=patience)
        self._had_stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Count on from where the checkpoint was, if there is one."""
        super().on_train_begin(args, state, control, **kwargs)
        saved = state.stateful_callbacks.get(type(self).__name__) if state.global_step else None
        self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"] if saved else 0
        self._had_stopped = self.early_stopping_patience_counter >= self.early_stopping_patience
        control.should_training_stop = control.should_training_stop or self._had_stopped

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Let nothing be evaluated or written again for an epoch that had no step."""
        if self._had_stopped:
            control.should_evaluate = control.should_save = False
