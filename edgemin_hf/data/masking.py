"""Masked tokens for masked-LM losses: other masks in each epoch, and the same ones in a resumed run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    DataCollator,
    DataCollatorForLanguageModeling,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)


class Collation(NamedTuple):
    """How batches are made.

    Attributes:
        collator: The data collator.
        callbacks: What it needs of the Trainer.
    """

    collator: DataCollator
    callbacks: list[TrainerCallback]


class Masking(Protocol):
    """A collator that masks other tokens in each epoch."""

    epoch: int


@dataclass
class MaskedTokens(DataCollatorForLanguageModeling):
    """Collate examples and mask tokens, at random by the batch's content, the seed and the epoch alone.

    The parent draws from one stream of random numbers, whose place a checkpoint does not keep: the batches that a
    Trainer prepares ahead have drawn from it already. A draw by content needs no place.

    Attributes:
        epoch: The epoch, which `EpochOfMasks` moves.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data import MaskedTokens
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[MASK]": 1, "my": 2, "card": 3}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]", mask_token="[MASK]")
        >>> rows = [{"input_ids": [2, 3, 2, 3]}, {"input_ids": [3, 3]}]
        >>> first, again = (MaskedTokens(tokenizer, seed=0)(rows) for _ in range(2))
        >>> first["labels"].shape, first["input_ids"].equal(again["input_ids"])
        (torch.Size([2, 4]), True)
    """

    epoch: int = 0

    def torch_call(self, examples: Sequence[Mapping[str, Sequence[int] | NDArray[np.int64]]]) -> dict[str, Tensor]:
        """Collate, mask, and make "labels": the true token where one is masked, else -100."""
        content = hashlib.sha256(np.concatenate([example["input_ids"] for example in examples]).tobytes())
        content.update(f"{self.seed} {self.epoch}".encode())
        self.generator = torch.Generator().manual_seed(int.from_bytes(content.digest()[:8], "little") >> 1)
        # Else the parent of transformers 5 takes it for another process's, and draws from one of its own.
        self._generator_pid = os.getpid()
        keys = ("input_ids", "attention_mask", "token_type_ids")
        batch: dict[str, Tensor] = super().torch_call(
            [{key: row[key] for key in keys if key in row} for row in examples]
        )
        return batch


class EpochOfMasks(TrainerCallback):
    """Tell a collator which epoch begins.

    Args:
        collator: The collator of the trainer.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast, TrainerState
        >>> from edgemin_hf.data import EpochOfMasks, MaskedTokens
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[MASK]": 1, "card": 2}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]", mask_token="[MASK]")
        >>> collator = MaskedTokens(tokenizer, seed=0)
        >>> EpochOfMasks(collator).on_epoch_begin(None, TrainerState(epoch=3.0), None)  # as a Trainer calls it
        >>> collator.epoch
        3
    """

    def __init__(self, collator: Masking) -> None:
        self.collator = collator

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move to the masks of the epoch."""
        self.collator.epoch = int(state.epoch or 0)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Move back to the first masks, so that evaluations before and after the training see the same ones."""
        self.collator.epoch = 0
