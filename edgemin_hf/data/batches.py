"""Batches of like length, and the lengths of tokenised rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import BatchEncoding, PreTrainedTokenizerBase

from edgemin_hf.data.padding import PaddingCollator

_ROWS = 10_000


def token_lengths(rows: Dataset | Sequence[Mapping[str, Sized]]) -> NDArray[np.int64]:
    """Return the number of tokens of each row, int64 (rows,); of a `Dataset` without reading the tokens themselves.

    Example:
        >>> from datasets import Dataset
        >>> from edgemin_hf.data.batches import token_lengths
        >>> token_lengths(Dataset.from_dict({"input_ids": [[2, 7, 3], [2, 3]]})).tolist()
        [3, 2]
    """
    if not isinstance(rows, Dataset):
        return np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
    parts = rows.select_columns("input_ids").with_format("arrow").iter(_ROWS)
    lengths = [pc.list_value_length(part.column(0)).to_numpy() for part in parts]
    found: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *lengths]).astype(np.int64)
    return found


def token_hash(rows: Dataset, column: str = "input_ids") -> str:
    """Return a hash of the tokens of all rows, or of what another column tells of them, whatever parts they lie in.

    Example:
        >>> from datasets import Dataset
        >>> from edgemin_hf.data.batches import token_hash
        >>> token_hash(Dataset.from_dict({"input_ids": [[2, 7], [3]]}))[:4]
        '6179'
    """
    found = hashlib.sha256()
    for part in rows.select_columns(column).with_format("arrow").iter(_ROWS):
        ids = part.column(0).combine_chunks()
        for numbers in (pc.list_value_length(ids), ids.flatten()):
            found.update(numbers.to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
    return found.hexdigest()


class LengthGroupedBatches(Sampler[int]):
    """Order examples so that those of a batch have like lengths and little padding is computed.

    The order depends on seed and epoch alone, so a resumed run sees the batches that it would have seen: examples are
    shuffled, sorted by length within blocks of 64 batches, and the batches shuffled again.

    Args:
        lengths: Length of each example.
        batch_size: Size of the batches that the order will be cut into.
        seed: Seed of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Move to the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        block = 64 * self.batch_size
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), block):
            part = order[start : start + block]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # A short batch can only be the last: an earlier one would shift all that follow across batch borders.
        short = [batch for batch in batches if len(batch) < self.batch_size]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        for index in generator.permutation(len(full)):
            yield from full[index].tolist()
        for batch in short:
            yield from batch.tolist()


def padded_batches(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, batch_size: int = 64
) -> Iterator[tuple[NDArray[np.int64], BatchEncoding]]:
    """Yield tokenised rows in batches of like length, padded, those of the shortest rows first.

    Args:
        rows: Tokenised rows, with "labels" or without.
        tokenizer: Their tokenizer, to pad with.
        batch_size: Rows of a batch.

    Yields:
        Which rows they are, int64 (batch,), and their tensors.
    """
    collate = PaddingCollator(tokenizer)
    order = np.argsort(token_lengths(rows), kind="stable")
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        yield part, collate([rows[int(index)] for index in part])


def batches_of_like_length(
    batches: Iterable[Mapping[str, Tensor]],
    examples: int,
    batch_size: int,
    pad_token_id: int,
    device: torch.device | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Take examples out of their padding and put those of like length together, padded on the right; no labels.

    Args:
        batches: Batches with `attention_mask` (examples, length).
        examples: How many are taken at most.
        batch_size: Examples of a new batch.
        pad_token_id: What `input_ids` are padded with; all else is padded with 0.
        device: Where the new batches go; None leaves them where the examples are.

    Yields:
        The new batches, those of the shortest examples first.

    Example:
        >>> import torch
        >>> from edgemin_hf.data.batches import batches_of_like_length
        >>> mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
        >>> batch = {"input_ids": 7 * mask, "attention_mask": mask}
        >>> [one["input_ids"].tolist() for one in batches_of_like_length([batch], 3, batch_size=2, pad_token_id=0)]
        [[[7, 0], [7, 7]], [[7, 7, 7]]]
    """
    found: list[dict[str, Tensor]] = []
    for batch in batches:
        mask = batch["attention_mask"].bool()
        for row in range(min(len(mask), examples - len(found))):
            inputs = {name: tensor[row] for name, tensor in batch.items() if name != "labels"}
            found.append({n: t[mask[row]] if t.shape == mask[row].shape else t for n, t in inputs.items()})
        if len(found) == examples:
            break
    found.sort(key=lambda example: len(example["attention_mask"]))
    for start in range(0, len(found), batch_size):
        part = found[start : start + batch_size]
        padding = {name: pad_token_id if name == "input_ids" else 0 for name in part[0]}
        yield {name: _stacked([one[name] for one in part], padding[name]).to(device) for name in part[0]}


def _stacked(rows: Sequence[Tensor], padding: int) -> Tensor:
    if rows[0].ndim == 0:
        return torch.stack(list(rows))
    return nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding)
