"""Batches of rows of different lengths: all that a row holds for each of its tokens is padded like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import BatchEncoding, DataCollatorWithPadding

from edgemin_hf.runtime.graph import TOKEN_TYPES

COUNTED = "counted"
"""Column of rows whose task asks about each token: 1 for the tokens that losses and predictions are about, else 0."""
TEACHER_LOGITS = "teacher_logits"
"""Input that carries what the teacher said beforehand: (batch, width), or for each token (batch, length, width)."""
TEACHER_ROW = "teacher_row"
"""Column that tells where the teacher's answers to a row stand, instead of these themselves."""

_PADDING: dict[str, float] = {"labels": -100, COUNTED: 0, TEACHER_LOGITS: 0.0}


@dataclass
class PaddingCollator(DataCollatorWithPadding):
    """Pad the rows of a batch to its longest.

    Labels of tokens are padded with -100, `COUNTED` with False and the teacher's answers to each token with 0, on the
    side that the tokenizer pads.

    Args:
        teacher: The teacher's answers to the counted tokens of rows that have a `TEACHER_ROW`: (counted, width) each,
            (1, width) where a row is answered as a whole.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.padding import PaddingCollator
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> rows = [{"input_ids": [1, 1], "labels": [-100, 2], "counted": [0, 1]}]
        >>> rows += [{"input_ids": [1], "labels": [0], "counted": [1]}]
        >>> batch = PaddingCollator(tokenizer)(rows)
        >>> batch["labels"].tolist(), batch["counted"].tolist()
        ([[-100, 2], [0, -100]], [[False, True], [True, False]])
    """

    teacher: Sequence[NDArray[np.floating[Any]]] | None = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """Return the tensors of a batch."""
        rows = [dict(row) for row in features]
        if COUNTED in rows[0]:  # beside it stand columns that no model reads
            known = {*self.tokenizer.model_input_names, TOKEN_TYPES, TEACHER_ROW, *_PADDING}
            rows = [{name: value for name, value in row.items() if name in known} for row in rows]
        if TEACHER_ROW in rows[0]:
            for row in rows:
                row[TEACHER_LOGITS] = self._scattered(row.pop(TEACHER_ROW), row.get(COUNTED))
        lengths = [len(row["input_ids"]) for row in rows]
        of_tokens = {name: [row.pop(name) for row in rows] for name in _PADDING if _is_of_tokens(name, rows, lengths)}
        batch: BatchEncoding = super().__call__(rows)
        longest = batch["input_ids"].shape[1]
        for name, values in of_tokens.items():
            batch[name] = self._padded(name, [np.asarray(value) for value in values], longest)
        return batch

    def _scattered(self, number: int, counted: Sequence[int] | None) -> NDArray[np.float32]:
        """Return the teacher's answers (length, width) to a row's tokens: 0 to those that don't count.

        Where a row is answered as a whole, (width,).
        """
        assert self.teacher is not None  # noqa: S101 - whoever gives rows their numbers gives the answers too
        found = self.teacher[number]
        if counted is None:
            whole: NDArray[np.float32] = found[0].astype(np.float32)
            return whole
        at = np.array(counted, dtype=bool)
        answers = np.zeros((len(at), found.shape[-1]), dtype=np.float32)
        answers[at] = found
        return answers

    def _padded(self, name: str, values: Sequence[NDArray[Any]], longest: int) -> Tensor:
        padded = np.full((len(values), longest, *values[0].shape[1:]), _PADDING[name], dtype=values[0].dtype)
        for row, value in zip(padded, values, strict=True):
            place = slice(longest - len(value), None) if self.tokenizer.padding_side == "left" else slice(len(value))
            row[place] = value
        tensor = torch.from_numpy(padded)
        return tensor.bool() if name == COUNTED else tensor


def _is_of_tokens(name: str, rows: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> bool:
    """Return whether the rows hold something for each token under a name, whatever width it has."""
    if name == TEACHER_LOGITS:
        return name in rows[0] and np.ndim(rows[0][name]) == 2
    return COUNTED in rows[0] and name in rows[0] and [len(row[name]) for row in rows] == list(lengths)
