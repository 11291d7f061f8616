"""Text as token ids: tables read from files, tokenised and cached, and batches of like length."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Literal, SupportsFloat

import datasets
import numpy as np
from datasets import Dataset, Features, IterableDataset, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError
from numpy.typing import NDArray
from pyarrow import ArrowInvalid
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase

READERS = {".tsv": "csv", ".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File endings that can be read, and the `datasets` builder of each."""

Text = str | tuple[str, str]
"""A text, or a pair of texts: a tokenizer takes a list of either."""


def check_table(
    path: Path, *text_columns: str, label_column: str | None = None, scores: bool = False, every_row: bool = True
) -> None:
    """Check that a table can be read, has rows, and has text and labels in each.

    Args:
        path: A file with one of the endings of `READERS`.
        *text_columns: Names of the columns that must hold text.
        label_column: Name of the column that must hold labels, text or numbers; None where none are needed.
        scores: Whether labels must be numbers.
        every_row: Whether to look at every row; else only at the first.

    Raises:
        ValueError: If not; the message names value and what is allowed.
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path}; allowed: a file that ends with {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    with _reading(path):
        first = next(iter(_load(path, streaming=True)), None) if path.stat().st_size else None
    if first is None:
        raise ValueError(f"{path}, which is empty; allowed: a file with rows")
    columns = [*text_columns, *([] if label_column is None else [label_column])]
    for column in columns:
        if column not in first:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(first)}")
    table = read_table(path) if every_row else Dataset.from_list([first])
    for column in columns:
        for row, value in enumerate(table[column], start=1):
            if value is None or (column in text_columns and not isinstance(value, str)):
                wanted = "text" if column in text_columns else "a label"
            elif scores and column == label_column and not _is_number(value):
                wanted = "a number"
            else:
                continue
            raise ValueError(f"{value!r} in column {column!r}, row {row} of {path}; allowed: {wanted}")


def _is_number(value: str | SupportsFloat) -> bool:
    try:
        return isfinite(float(value))
    except (TypeError, ValueError):
        return False


def read_table(path: Path) -> Dataset:
    """Read a TSV, CSV, JSON lines or Parquet file with a header.

    All of TSV and CSV is text, as it stands there; quotes in TSV are characters like any other.

    Raises:
        ValueError: If the file is broken.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data import read_table
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "rows.csv").write_text(f"text,label{chr(10)}my card,7")
        ...     read_table(Path(folder, "rows.csv"))[0]
        {'text': 'my card', 'label': '7'}
    """
    with _reading(path):
        return _load(path, streaming=False)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the many errors of a broken file into one, without a progress bar or a log before its one line."""
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    except (DatasetGenerationError, ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}, which can't be read ({error.__cause__ or error}); allowed: a complete table"
        ) from None
    finally:
        datasets.enable_progress_bars()
        datasets.logging.set_verbosity(verbosity)


def _load(path: Path, streaming: bool) -> Dataset | IterableDataset:
    options: dict[str, object] = {}
    if path.suffix in (".csv", ".tsv"):
        tabs = path.suffix == ".tsv"
        delimiter = "\t" if tabs else ","
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        options = {"sep": delimiter, "quoting": quoting, "keep_default_na": False}
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file, delimiter=delimiter, quoting=quoting), [])
        options["features"] = Features({name: Value("string") for name in header})
    return load_dataset(READERS[path.suffix], data_files=str(path), split="train", streaming=streaming, **options)


def tokenize(
    table: Dataset, column: str, tokenizer: PreTrainedTokenizerBase, max_length: int, pair_column: str | None = None
) -> Dataset:
    """Tokenise a column of texts, or two as pairs; rows keep their own lengths, without padding.

    Args:
        table: The table.
        column: Name of the column of texts.
        tokenizer: The tokenizer.
        max_length: Tokens after which a row is cut; of a pair the longer text first.
        pair_column: Name of the column of second texts, where rows are pairs.

    Returns:
        A dataset with the tokenizer's columns, and "labels" where the table has it; all others are dropped.

    Example:
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data import tokenize
        >>> rules = Tokenizer(models.WordLevel({"[UNK]": 0, "my": 1, "card": 2}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> table = Dataset.from_dict({"text": ["my card", "my my card"], "labels": [0, 1]})
        >>> tokenize(table, "text", tokenizer, max_length=2)["input_ids"][:]
        [[1, 2], [1, 1]]
    """
    dropped = [name for name in table.column_names if name != "labels"]
    return table.map(
        lambda rows: tokenizer(
            rows[column], rows[pair_column] if pair_column else None, truncation=True, max_length=max_length
        ),
        batched=True,
        remove_columns=dropped,
        desc="Tokenising",
    )


def read_sentences(paths: Sequence[Path], column: str) -> Dataset:
    """Read raw text: one column of several tables, each different sentence once, everything else dropped."""
    texts = concatenate_datasets([read_table(path).select_columns(column) for path in paths])[column]
    return Dataset.from_dict({column: list(dict.fromkeys(texts))})


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
