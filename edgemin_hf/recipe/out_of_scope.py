"""The end of a training on the task: how readily the model says that a text is out of scope."""

from __future__ import annotations

import torch
from accelerate.utils import parse_flag_from_env
from datasets import Dataset

from edgemin_hf.modeling.head_fitting import frozen_features, last_linear
from edgemin_hf.recipe.context import Context
from edgemin_hf.tasks.text_classification import TextClassification
from edgemin_hf.training.row_trainer import RowTrainer


def check_out_of_scope(context: Context, provider: str = "native") -> None:
    """Check that a stage can shift what is out of scope, if that is asked for; `provider` is who quantises in it."""
    if not isinstance(context.task, TextClassification) or context.task.out_of_scope_label is None:
        return
    if provider == "inc":
        raise ValueError("provider: inc beside task.out_of_scope_label; allowed: native, whose head keeps its bias")
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise ValueError("task.out_of_scope_label under FSDP, where no process has a whole head; allowed: none")


@torch.no_grad()
def shift_out_of_scope(context: Context, trainer: RowTrainer, validation: Dataset) -> tuple[str, ...]:
    """Shift the bias of a trained model's head for what is out of scope, where the task has a label for that.

    Each process does the same, on all rows.

    Args:
        context: The recipe at work.
        trainer: The trainer, whose model is written to.
        validation: The rows that choose, tokenised.

    Returns:
        A note on it; none without such a label.
    """
    task, model = context.task, trainer.model
    if not isinstance(task, TextClassification) or task.out_of_scope_label is None:
        return ()
    head, label = last_linear(model.eval()), context.label_ids[task.out_of_scope_label]
    features, labels = frozen_features(model, trainer.batches_of(validation))
    shift = task.out_of_scope_shift(head(features.to(model.device)).cpu().numpy(), labels.numpy(), label)
    head.bias[label] += shift
    return (f"logit of {task.out_of_scope_label} shifted by {shift:+.2f}",)
