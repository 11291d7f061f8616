"""Rows with masked tokens: some of each, other ones in each epoch, or always the same ones; or each token in turn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerBase

from edgemin_hf.data.corpus import framing_tokens
from edgemin_hf.data.padding import COUNTED, PaddingCollator
from edgemin_hf.data.tokenization import encode

IN_TURN = "in_turn"
"""Column of texts whose masks are fixed: whether each of their tokens is masked in turn too; of rows whether one is."""
UNMASKED = -100
"""The label of a token that is not to be predicted."""
_MASKED, _RANDOM = 0.8, 0.1
"""Shares of the chosen tokens that become the mask token, or any token; the others stay (arXiv 1810.04805)."""


def drawn_places(
    ids: NDArray[np.int64], special: Sequence[int], share: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the tokens of a row that are to be predicted: a share of those that are not special, rounded, at least one.

    Args:
        ids: The row's tokens (length,).
        special: The ids of special tokens, which are never drawn.
        share: The share.
        generator: What draws.

    Returns:
        Their places, int64 in order; none of a row of special tokens alone.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.data.masked_rows import drawn_places
        >>> len(drawn_places(np.array([2, *range(5, 25), 3]), [2, 3], 0.15, np.random.default_rng(0)))
        3
    """
    able = np.flatnonzero(~np.isin(ids, special))
    count = max(1, round(share * len(able))) if len(able) else 0
    return np.sort(generator.choice(able, count, replace=False))


@dataclass
class MaskingCollator(PaddingCollator):
    """Pad the rows of a batch, and mask tokens of those that have no labels yet.

    Of the tokens that `drawn_places` gives, 80% become the mask token, 10% any token, and 10% stay (BERT, arXiv
    1810.04805). The draw follows from a row's tokens, the seed and the epoch: neither the batch nor a resumed run
    changes it.

    Attributes:
        share: The share of a row's tokens that are to be predicted.
        seed: Seed of the draw.
        epoch: The epoch, which `EpochOfMasks` moves.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.masked_rows import MaskingCollator
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[MASK]": 1, "my": 2, "card": 3}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]", mask_token="[MASK]")
        >>> batch = MaskingCollator(tokenizer, share=0.5)([{"input_ids": [2, 3, 2, 3]}, {"input_ids": [3, 3]}])
        >>> batch["counted"].sum(dim=1).tolist(), batch["labels"].shape
        ([2, 1], torch.Size([2, 4]))
    """

    share: float = 0.15
    seed: int = 0
    epoch: int = 0

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """Return the tensors of a batch, with "labels" and `COUNTED`."""
        return super().__call__([row if "labels" in row else self._masked(row) for row in features])

    def _masked(self, row: Mapping[str, Any]) -> dict[str, Any]:
        ids = np.array(row["input_ids"], dtype=np.int64)
        generator = _generator_of(ids, self.seed, self.epoch)
        places = drawn_places(ids, self.tokenizer.all_special_ids, self.share, generator)
        fate, any_ids = generator.random(len(places)), generator.integers(len(self.tokenizer), size=len(places))
        inputs = ids.copy()
        inputs[places[fate < _MASKED]] = self.tokenizer.mask_token_id
        changed = (fate >= _MASKED) & (fate < _MASKED + _RANDOM)
        inputs[places[changed]] = any_ids[changed]
        return {**row, "input_ids": inputs.tolist(), **_asked_at(ids, places)}


def masked_rows(
    table: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, max_length: int, share: float
) -> Dataset:
    """Tokenise texts into rows whose masks are always the same: one of each text, and one a token of some.

    In the first all tokens of `drawn_places` become the mask token; in each of the others one that is not special.

    Args:
        table: The texts, with `IN_TURN`.
        column: Name of the column of the texts.
        tokenizer: The tokenizer, which has a mask token.
        max_length: Tokens after which a text is cut.
        share: The share of a text's tokens that its first row masks.

    Returns:
        The tokenizer's columns; "labels" and `COUNTED` of each token; "example", the number of the text; `IN_TURN`.

    Example:
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.masked_rows import masked_rows
        >>> rules = Tokenizer(models.WordLevel({"[MASK]": 0, "my": 1, "card": 2}))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, mask_token="[MASK]")
        >>> table = Dataset.from_dict({"text": ["my card"], "in_turn": [True]})
        >>> masked_rows(table, "text", tokenizer, 8, 0.15)["input_ids"][1:]
        [[0, 2], [1, 0]]
    """
    numbers = ListOf(Value("int32"))
    features = dict.fromkeys(encode(tokenizer, [""], max_length), numbers)
    features |= {"labels": ListOf(Value("int64")), COUNTED: ListOf(Value("int8"))}
    features |= {"example": Value("int32"), IN_TURN: Value("bool")}
    return table.map(
        partial(_rows_of, column=column, tokenizer=tokenizer, max_length=max_length, share=share),
        batched=True,
        batch_size=100,
        with_indices=True,
        remove_columns=table.column_names,
        features=Features(features),
        desc="Masking",
    )


def _rows_of(
    batch: Mapping[str, Sequence[Any]],
    numbers: Sequence[int],
    *,
    column: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    share: float,
) -> dict[str, list[Any]]:
    """Return the rows of some texts of a table, by columns: `numbers` says which texts they are; see `masked_rows`."""
    encoded, rows = encode(tokenizer, batch[column], max_length), []
    special = tokenizer.all_special_ids
    for index, (number, in_turn) in enumerate(zip(numbers, batch[IN_TURN], strict=True)):
        inputs = {name: values[index] for name, values in encoded.items()}
        ids = np.array(inputs["input_ids"], dtype=np.int64)
        once = drawn_places(ids, special, share, _generator_of(ids, 0, 0))
        able = np.flatnonzero(~np.isin(ids, special))
        for places in (once, *(able[:, None] if in_turn else ())):
            masked = ids.copy()
            masked[places] = tokenizer.mask_token_id
            told = {"example": number, IN_TURN: places is not once}
            rows.append({**inputs, "input_ids": masked, **_asked_at(ids, places), **told})
    return {name: [row[name] for row in rows] for name in rows[0]}


def packed_rows(table: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Tokenise texts, join them with the tokenizer's separator between them, and cut them into rows of one length.

    Of each thousand texts the last row may be shorter.

    Args:
        table: The texts.
        column: Name of their column.
        tokenizer: The tokenizer, which ends a text with its separator.
        max_length: Tokens of a row, special ones included.

    Returns:
        The tokenizer's columns.

    Example:
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.masked_rows import packed_rows
        >>> rules = Tokenizer(models.WordLevel({"[SEP]": 0, "my": 1, "card": 2, "[UNK]": 3}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, sep_token="[SEP]", unk_token="[UNK]")
        >>> packed_rows(Dataset.from_dict({"text": ["my card", "card"]}), "text", tokenizer, 3)["input_ids"][:]
        [[1, 2, 0], [2]]
    """

    def pack(batch: Mapping[str, Sequence[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch[column], add_special_tokens=False, verbose=False)["input_ids"]
        joined = [token for text in ids for token in (*text, tokenizer.sep_token_id)][:-1]
        before, after = framing_tokens(tokenizer)
        inner = max_length - len(before) - len(after)
        rows = [[*before, *joined[i : i + inner], *after] for i in range(0, len(joined), inner)]
        return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}

    return table.map(pack, batched=True, remove_columns=table.column_names, desc="Packing")


def _asked_at(ids: NDArray[np.int64], places: NDArray[np.int64]) -> dict[str, list[int]]:
    """Return the labels of a row's tokens, and which count, where those at some places are to be predicted."""
    labels, counted = np.full(len(ids), UNMASKED), np.zeros(len(ids), dtype=np.int8)
    labels[places], counted[places] = ids[places], 1
    return {"labels": labels.tolist(), COUNTED: counted.tolist()}


def _generator_of(ids: NDArray[np.int64], seed: int, epoch: int) -> np.random.Generator:
    """Return what draws for a row, by its content."""
    content = hashlib.sha256(ids.tobytes())
    content.update(f"{seed} {epoch}".encode())
    return np.random.default_rng(int.from_bytes(content.digest()[:8], "little"))
