"""Rows that are held out of a table for validation."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from datasets import ClassLabel, Dataset
from numpy.typing import NDArray

_CLASS = "class of the row"
"""The column of classes while a table is split."""


def held_out(table: Dataset, share: float, seed: int, classes: Sequence[int] | None = None) -> tuple[Dataset, Dataset]:
    """Split a table by a seeded draw.

    Args:
        table: The table.
        share: The share of its rows that is held out.
        seed: Seed of the draw.
        classes: The number of each row's class, of which each part then has its share; None draws from all rows alike,
            and so does `why_not_stratified`.

    Returns:
        The rows that stay, and those that are held out.
    """
    if classes is None or why_not_stratified(classes, share):
        split = table.train_test_split(test_size=share, seed=seed)
        return split["train"], split["test"]
    numbers = np.unique(np.asarray(classes), return_inverse=True)[1].tolist()
    names = ClassLabel(names=[str(number) for number in range(max(numbers) + 1)])
    marked = table.add_column(_CLASS, numbers).cast_column(_CLASS, names)
    split = marked.train_test_split(test_size=share, seed=seed, stratify_by_column=_CLASS)
    return split["train"].remove_columns(_CLASS), split["test"].remove_columns(_CLASS)


def why_not_stratified(classes: Sequence[int], share: float) -> str | None:
    """Return why not each part can have its share of each class; None where it can.

    Example:
        >>> from edgemin_hf.tasks.splits import why_not_stratified
        >>> why_not_stratified([0, 0, 1, 1], 0.5), why_not_stratified([0, 0, 1], 0.5)
        (None, 'a label has one row')
    """
    counts = np.unique(np.asarray(classes), return_counts=True)[1]
    if counts.min() < 2:
        return "a label has one row"
    out = ceil(share * len(classes))
    if min(out, len(classes) - out) < len(counts):
        return f"{min(out, len(classes) - out)} rows can't have {len(counts)} labels"
    return None


def held_out_groups(
    table: Dataset, share: float, seed: int, groups: Sequence[int], counts: NDArray[np.bool_]
) -> tuple[Dataset, Dataset]:
    """Split a table by a seeded draw of whole groups of rows, of which one at least stays.

    Args:
        table: The table.
        share: The share of the groups that is held out.
        seed: Seed of the draw.
        groups: The number of each row's group.
        counts: Which groups may be held out, (groups,).

    Returns:
        The rows that stay, and those that are held out.

    Example:
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> from edgemin_hf.tasks.splits import held_out_groups
        >>> table = Dataset.from_dict({"query": ["a", "a", "b", "c", "c"]})
        >>> train, validation = held_out_groups(table, 0.3, 0, [0, 0, 1, 2, 2], np.array([True, False, True]))
        >>> len(train["query"]), set(validation["query"]) < {"a", "c"}
        (3, True)
    """
    able = np.random.default_rng(seed).permutation(np.flatnonzero(counts))
    count = min(ceil(share * len(counts)), len(able) - 1)
    out = np.isin(np.asarray(groups), able[:count])
    return table.select(np.flatnonzero(~out)), table.select(np.flatnonzero(out))
