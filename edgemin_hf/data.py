"""Text as token ids: tables read from files, tokenised and cached, and batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets, disable_progress_bars, enable_progress_bars, load_dataset
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

READERS = {".tsv": "csv", ".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File endings that can be read, and the `datasets` builder of each."""


def check_table(path: Path, columns: Sequence[str]) -> None:
    """Checks that a table exists, has rows and has the columns, without reading it whole.

    Args:
        path: A file with one of the endings of `READERS`.
        columns: Names that must be there.

    Raises:
        ValueError: If not; the message names value and what is allowed.
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path}; allowed: a file that ends with {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    rows = load_dataset(READERS[path.suffix], data_files=str(path), split="train", streaming=True, **_options(path))
    first = next(iter(rows), None) if path.stat().st_size else None
    if first is None:
        raise ValueError(f"{path}, which is empty; allowed: a file with rows")
    for column in columns:
        if column not in first:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(first)}")


def read_table(path: Path) -> Dataset:
    """Reads a TSV, CSV, JSON lines or Parquet file with a header; quotes in TSV are characters like any other."""
    # Reading is quick; a progress bar would stand before the one line that bad input gets.
    disable_progress_bars()
    try:
        return load_dataset(READERS[path.suffix], data_files=str(path), split="train", **_options(path))
    finally:
        enable_progress_bars()


def _options(path: Path) -> dict[str, object]:
    if path.suffix == ".tsv":
        return {"sep": "\t", "quoting": 3, "keep_default_na": False}
    return {"keep_default_na": False} if path.suffix == ".csv" else {}


def tokenize(table: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Tokenises one text column; rows keep their own lengths, at most `max_length`, without padding.

    Returns:
        A dataset with the tokenizer's columns, and "labels" where the table has it; all others are dropped.
    """
    dropped = [name for name in table.column_names if name != "labels"]
    return table.map(
        lambda rows: tokenizer(rows[column], truncation=True, max_length=max_length),
        batched=True,
        remove_columns=dropped,
        desc="Tokenising",
    )


def read_sentences(paths: Sequence[Path], column: str) -> Dataset:
    """Reads raw text: one column of several tables, each different sentence once, everything else dropped."""
    texts = concatenate_datasets([read_table(path).select_columns(column) for path in paths])[column]
    return Dataset.from_dict({column: list(dict.fromkeys(texts))})


class LengthGroupedBatches(Sampler[int]):
    """Orders examples so that those of a batch have like lengths and little padding is computed.

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
        """Moves to the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.epoch))
        order = generator.permutation(len(self.lengths))
        block = 64 * self.batch_size
        batches: list[np.ndarray] = []
        for start in range(0, len(order), block):
            part = order[start : start + block]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        # A short batch can only be the last: an earlier one would shift all that follow across batch borders.
        short = [batch for batch in batches if len(batch) < self.batch_size]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        for index in generator.permutation(len(whole)):
            yield from whole[index].tolist()
        for batch in short:
            yield from batch.tolist()
