"""Some rows instead of all, drawn by a seed."""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset

from edgemin_hf.data.padding import COUNTED

FITTED_TOKENS = 100_000
"""Tokens, at most, that a head which answers for each is fitted on: its features lie in memory (0.3 GB of a width of
768), and more tell a linear layer little."""


def drawn(rows: Dataset, count: int, seed: int) -> Dataset:
    """Return some rows, drawn at random, the same ones in all processes."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return rows.select(order[:count].tolist())


def within_tokens(rows: Dataset, tokens: int = FITTED_TOKENS) -> Dataset:
    """Return the first rows whose counted tokens are no more than so many, one row at least; all rows without any.

    Example:
        >>> from datasets import Dataset
        >>> from edgemin_hf.data.drawing import within_tokens
        >>> len(within_tokens(Dataset.from_dict({"counted": [[1, 0], [1, 1], [1, 1]]}), 4))
        2
    """
    if COUNTED not in rows.column_names:
        return rows
    ends = np.cumsum([sum(counted) for counted in rows[COUNTED]])
    return rows.select(range(max(1, int(np.searchsorted(ends, tokens, side="right")))))
