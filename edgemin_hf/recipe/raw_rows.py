"""The rows of raw text, as a recipe asks for them; and which tokens rows hold."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.corpus import TokenBlocks, token_stream
from edgemin_hf.data.tables import read_sentences
from edgemin_hf.data.tokenization import tokenize
from edgemin_hf.recipe.schema import RawText, RecipeError

CACHE = Path(HF_HOME) / "edgemin"
"""Where tokenised raw text is kept, for all runs."""
_COUNTED_ROWS = 20_000
"""Rows that tell which tokens are frequent."""


def packed_rows(raw: RawText, root: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[TokenBlocks, TokenBlocks]:
    """Return training and validation blocks of raw text that is packed.

    Raises:
        RecipeError: If there are too few.
    """
    try:
        stream = token_stream(raw.source(root), tokenizer, CACHE)
        return TokenBlocks(stream, tokenizer, raw.max_length).split(raw.validation_blocks)
    except ValueError as error:  # how many blocks there are is known when the text has been read
        raise RecipeError(f"raw_text: {error}") from None


def unpacked_rows(raw: RawText, root: Path, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Return raw text that is not packed, a row each."""
    table = read_sentences([root / file for file in raw.files], raw.text_column)
    return tokenize(table, raw.text_column, tokenizer, raw.max_length)


def token_counts(rows: Dataset | TokenBlocks, vocab_size: int) -> Tensor:
    """Count how often each token occurs in the first rows: (vocab_size,), int64."""
    first = (torch.as_tensor(rows[index]["input_ids"]) for index in range(min(len(rows), _COUNTED_ROWS)))
    return torch.bincount(torch.cat(list(first)), minlength=vocab_size)
