"""What several methods share: means that padding and batch borders do not change, and maps between layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgemin_hf.encoder import Encoder


def mask_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """Returns which tokens are real, bool (batch, length); all of them where the inputs hold no attention mask."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask != 0


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Averages over the chosen tokens of each example, then over examples.

    So every example weighs the same, whatever its length, and neither accumulation nor the number of processes
    changes a loss. An example without a chosen token counts as zero.

    Args:
        values: A number for each token (batch, length).
        mask: Which tokens count, bool (batch, length).

    Returns:
        The scalar mean.
    """
    chosen = values.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return chosen.mean()


def need_teacher(teacher: Encoder | None, method: str) -> Encoder:
    """Returns the teacher.

    Raises:
        ValueError: If there is none.
    """
    if teacher is None:
        raise ValueError(f"teacher_model: None; allowed: a model, since {method} compares the student with one")
    return teacher


def uniform_layers(student: Encoder, teacher: Encoder) -> list[int]:
    """Maps each student layer to a teacher layer, evenly spaced and ending with the last.

    Layer m of M, counted from 1, learns from layer m * L / M of L, rounded up.

    Returns:
        The teacher's layers, counted from 0.
    """
    depth, limit = len(student.layers), len(teacher.layers)
    return [-(-(layer + 1) * limit // depth) - 1 for layer in range(depth)]


def first_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Takes each example's first real token, where encoders have their [CLS].

    Args:
        hidden: (batch, length, width).
        mask: Which tokens are real, bool (batch, length); padding may stand on either side.

    Returns:
        (batch, width).
    """
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.int().argmax(dim=1)]
