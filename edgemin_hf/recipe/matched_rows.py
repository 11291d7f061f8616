"""Rows of one text in the tokens of two vocabularies: which of them say something of the same parts of it."""

from __future__ import annotations

import hashlib

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from edgemin_hf.data.padding import COUNTED

_PLACES = ("offsets", "word_ids")
"""The columns that tell what of an example a token is about: its characters, or the word whose tag it tells."""


def matched_rows(rows: Dataset, others: Dataset) -> NDArray[np.int64]:
    """Return for each row of a ragged task the other row whose counted tokens are about the same.

    As many counted tokens are not enough: where a vocabulary's cut divides words into more pieces, a full window holds
    as many, of a shorter part of its text.

    Args:
        rows: Rows with `COUNTED`, "example", and "offsets" or "word_ids".
        others: The same examples in other tokens.

    Returns:
        The other row's number, or -1 where there is none, int64 (rows,).

    Example:
        >>> from datasets import Dataset
        >>> from edgemin_hf.recipe.matched_rows import matched_rows
        >>> rows = {"example": [0, 0], "counted": [[0, 1, 1], [1, 0, 0]], "word_ids": [[-1, 0, 1], [2, -1, -1]]}
        >>> whole = {"example": [0], "counted": [[0, 1, 0]], "word_ids": [[-1, 2, -1]]}
        >>> matched_rows(Dataset.from_dict(rows), Dataset.from_dict(whole)).tolist()
        [-1, 0]
    """
    if rows is others:
        return np.arange(len(rows))
    known = {about: number for number, about in reversed(list(enumerate(_about(others))))}
    return np.array([known.get(about, -1) for about in _about(rows)], dtype=np.int64)


def _about(rows: Dataset) -> list[tuple[int, bytes]]:
    """Return each row's example, and a hash of what its counted tokens are about; of their ids where none tells it."""
    place = next((name for name in _PLACES if name in rows.column_names), "input_ids")
    examples = rows["example"] if "example" in rows.column_names else range(len(rows))
    found = []
    for example, part in zip(examples, rows.select_columns([COUNTED, place]), strict=True):
        about = np.asarray(part[place], dtype=np.int64)[np.asarray(part[COUNTED], dtype=bool)]
        found.append((int(example), hashlib.sha256(about.tobytes()).digest()))
    return found
