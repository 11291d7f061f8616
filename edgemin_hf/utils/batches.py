"""Batches of tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import cast


def count_rows(batch: Mapping[str, object]) -> int:
    """Return the number of rows of a batch: the first dimension of its tensors.

    Example:
        >>> import torch
        >>> from edgemin_hf.utils.batches import count_rows
        >>> count_rows({"input_ids": torch.zeros(2, 7)})
        2
    """
    return len(cast(Sized, next(iter(batch.values()))))
