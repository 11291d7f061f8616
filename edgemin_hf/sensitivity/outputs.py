"""What a model gives for the rows of several batches, and how far that is from what it gave before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from edgemin_hf.data.padding import COUNTED
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.outputs import head_output
from edgemin_hf.tasks.base import Outputs, Task

Batch = Mapping[str, Tensor]


def inputs_of(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """Return what of a batch a model takes, on its device."""
    return {name: value.to(model.device) for name, value in filter_forward_inputs(model, batch).items()}


def logits_of(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return what a model's head gives for a batch, float32."""
    found = head_output(model(**inputs_of(model, batch)))
    assert found is not None  # noqa: S101 - `task_of` knows the head
    return found.float()


def rows_of(parts: Sequence[NDArray[np.generic]], batches: Sequence[Batch]) -> Outputs:
    """Return what stands for each row in the arrays of several batches.

    Args:
        parts: An array for each batch: (batch, ...), or (batch, length, width).
        batches: The batches.

    Returns:
        (rows, ...); or (length, width) for each row, of its own tokens.
    """
    if parts[0].ndim < 3:
        joined: Outputs = np.concatenate(parts)
        return joined
    masks = [_mask(batch).bool().cpu().numpy() for batch in batches]
    return [row[own] for part, mask in zip(parts, masks, strict=True) for row, own in zip(part, mask, strict=True)]


def divergence(task: type[Task], outputs: Outputs, reference: Outputs, batches: Sequence[Batch]) -> float:
    """Return how far what a model gives for the rows of batches is from a reference's, as the task measures it."""
    if isinstance(outputs, np.ndarray):
        ours, theirs = (torch.from_numpy(np.asarray(side)).double() for side in (outputs, reference))
        return float(task.divergence(ours, theirs))
    counted = rows_of([batch.get(COUNTED, _mask(batch)).bool().cpu().numpy()[..., None] for batch in batches], batches)
    ours, theirs, at = (
        pad_sequence([torch.from_numpy(row) for row in side], batch_first=True)
        for side in (outputs, reference, counted)
    )
    return float(task.divergence(ours.double(), theirs.double(), at[..., 0]))


def _mask(batch: Batch) -> Tensor:
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
