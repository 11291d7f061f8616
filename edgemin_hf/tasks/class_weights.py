"""Weights of labels in the loss, so that rare ones count as much as common ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgemin_hf.tasks.metrics import Answer


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


def _balanced(counts: Any) -> Tensor:
    occur = counts > 0
    weights = np.where(occur, counts.sum() / (occur.sum() * np.maximum(counts, 1)), 0)
    return torch.tensor(weights, dtype=torch.float32)
