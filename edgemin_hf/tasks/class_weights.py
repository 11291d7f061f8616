"""Weights of labels in the loss, so that rare ones count as much as common ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemin_hf.tasks.head import LabelLoss
from edgemin_hf.tasks.metrics import Answer
from edgemin_hf.tasks.table_task import TableTask


def balanced_weights(answer: Answer, labels: Sequence[Any], count: int) -> Tensor:
    """Compute rows / (labels that occur * rows with the label), scikit-learn's "balanced" (King and Zeng 2001).

    Over the training rows their mean is 1. A label that does not occur there has the weight 0.

    Args:
        answer: What labels are.
        labels: Those of the training rows, as numbers: one a row, a list of one for each word, or of label sets 0 and 1
            for each label.
        count: Number of labels.

    Returns:
        float32 (labels,); of label sets (labels, 2), the weights of a label's no and of its yes.

    Example:
        >>> from edgemin_hf.tasks.class_weights import balanced_weights
        >>> balanced_weights("label", [0, 0, 0, 1], 2)
        tensor([0.6667, 2.0000])
    """
    if answer == "label set":
        yes = np.asarray(labels, dtype=float).sum(axis=0)
        return torch.stack([_balanced(np.array([len(labels) - one, one])) for one in yes])
    numbers = np.concatenate([np.atleast_1d(np.asarray(label, dtype=int)) for label in labels])
    return _balanced(np.bincount(numbers[numbers >= 0], minlength=count).astype(float))


def label_loss(task: TableTask, root: Path, labels: Mapping[str, int], seed: int) -> LabelLoss:
    """Return a task's `hard_loss` as its settings have it: with class weights of the training rows, and smoothing.

    Args:
        task: The task.
        root: The folder that its paths are relative to.
        labels: Number of each label.
        seed: Seed of the draw that held rows out.
    """
    loss: Any = task.hard_loss
    if not task.class_weights and not task.label_smoothing:
        return loss  # type: ignore[no-any-return]
    weights = None
    if task.class_weights:
        weights = balanced_weights(task.answer, task.encoded(task.train_table(root, seed), labels), len(labels))
    return partial(loss, class_weights=weights, label_smoothing=task.label_smoothing)


def _balanced(counts: Any) -> Tensor:
    occur = counts > 0
    weights = np.where(occur, counts.sum() / (occur.sum() * np.maximum(counts, 1)), 0)
    return torch.tensor(weights, dtype=torch.float32)
