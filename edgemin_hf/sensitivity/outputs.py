"""What a model gives for the rows of several batches, and how far that is from what it gave before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
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


def kept_of(task: type[Task], logits: Tensor, batch: Batch) -> NDArray[np.float32]:
    """Return what the task keeps of what a model gives for a batch: by its labels, else all."""
    labels = batch.get("labels")
    kept = logits if labels is None else task.condensed(logits, labels.to(logits.device))
    found: NDArray[np.float32] = kept.cpu().numpy()
    return found


def divergence(task: type[Task], logits: Tensor, reference: Tensor, batch: Batch) -> float:
    """Return how far what a model gives for a batch is from a reference's, as the task measures it: a sum over rows."""
    if logits.ndim < 3:
        return len(logits) * float(task.divergence(logits.double(), reference.double()))
    mask = _mask(batch).bool()
    counted = (batch.get(COUNTED, mask).bool() & mask).to(logits.device)
    # A row at a time: as float64, those of a vocabulary take a gigabyte for a batch.
    rows = zip(logits[:, None], reference[:, None], counted[:, None], strict=True)
    return sum(float(task.divergence(ours.double(), theirs.double(), own)) for ours, theirs, own in rows)


def _mask(batch: Batch) -> Tensor:
    return batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
