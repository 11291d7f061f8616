"""Tables of texts and labels, read from files and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from glob import escape
from math import isfinite
from pathlib import Path
from typing import SupportsFloat

import datasets
import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from edgemin_hf.data.squad import FEATURES, is_squad, squad_rows
from edgemin_hf.utils.delimited import check_utf8, layout_of

READERS = {".tsv": "csv", ".csv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
"""File endings that can be read, and the `datasets` builder of each."""

Text = str | tuple[str, str]
"""A text, or a pair of texts: a tokenizer takes a list of either."""

_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 80
"""Characters of a value in a message."""
_ROWS = 10_000
"""Rows of which a column is in memory at a time."""


def check_table(path: Path, *text_columns: str, label_column: str | None = None, scores: bool = False) -> None:
    """Check that a table can be read, has rows, and has text and labels in each.

    Args:
        path: A file with one of the endings of `READERS`.
        *text_columns: Names of the columns that must hold text.
        label_column: Name of the column that must hold labels, text or numbers; None where none are needed.
        scores: Whether labels must be numbers.

    Raises:
        ValueError: If not; the message names value and what is allowed.
    """
    table = read_table(path)
    columns = [*text_columns, *([] if label_column is None else [label_column])]
    for column in columns:
        if column not in table.column_names:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(table.column_names)}")
    if not len(table):
        raise ValueError(f"{path}, which is empty; allowed: a file with rows")
    for column in columns:
        feature = table.features[column]
        if type(feature).__name__ == "Json":  # what `datasets` makes of text among numbers
            raise ValueError(_of_several_types(table, column, path))
        for row, value in enumerate(values_of(table, column), start=1):
            if column in text_columns:
                wanted = None if isinstance(value, str) else "text"
            elif scores:
                wanted = None if _is_number(value) else "a number"
            else:
                wanted = None if _is_label(value, isinstance(feature, ClassLabel)) else "a label"
            if wanted:
                found = repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
                raise ValueError(f"{found} in column {column!r}, row {row} of {path}; allowed: {wanted}")


def _of_several_types(table: Dataset, column: str, path: Path) -> str:
    """Return the message on a column that holds text among numbers, or the like, with the first row that differs."""
    first = table[0][column]
    row, value = next(
        (row, value) for row, value in enumerate(table[column], start=1) if type(value) is not type(first)
    )
    return f"{value!r} in column {column!r}, row {row} of {path}, and {first!r} in row 1; expected: values of one type"


def _is_number(value: object) -> bool:
    """Return whether a value is a number that float32 can hold; Python alone takes "1_0" for one."""
    try:
        return isinstance(value, str | SupportsFloat) and abs(float(value)) <= _LARGEST and "_" not in str(value)
    except ValueError:
        return False


def _is_label(value: object, numbers_a_class: bool) -> bool:
    """Return whether a value is no missing label: an empty cell, NaN, or the -1 of rows whose class is not told."""
    if numbers_a_class:
        return isinstance(value, int) and value >= 0
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | list) or (isinstance(value, float) and isfinite(value))


def values_of(table: Dataset, column: str) -> Iterator[object]:
    """Yield a column's values, some of which are in memory at a time; a `ClassLabel` is its number."""
    for rows in table.select_columns(column).with_format("arrow").iter(_ROWS):
        yield from rows.column(0).to_pylist()


def read_table(path: Path) -> Dataset:
    """Read a TSV, CSV, JSON lines or Parquet file with a header.

    All of TSV and CSV is text, as it stands there; quotes in TSV are characters like any other. Columns without a name
    are left out. A Parquet file that `datasets` wrote keeps the names of its classes (`ClassLabel`). SQuAD's own JSON
    has a row for each question.

    Raises:
        ValueError: If there is no such file, or it is broken; the message is one line.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data import read_table
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "rows.csv").write_text(f"text,label{chr(10)}my card,7")
        ...     read_table(Path(folder, "rows.csv"))[0]
        {'text': 'my card', 'label': '7'}
    """
    if path.suffix not in READERS:
        raise ValueError(f"{path}; allowed: a file that ends with {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    status = path.stat()
    if not status.st_size:
        raise ValueError(f"{path}, which is empty; allowed: a file with rows")
    return _read(path.resolve(), path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=16)
def _read(file: Path, path: Path, size: int, changed: int, inode: int) -> Dataset:
    """Read a file, once for a process while it stays as it is; its rows lie on disk, not in memory."""
    options = _options(path)
    with _reading(path):
        if path.suffix == ".json" and is_squad(path):
            content = {"path": str(file), "version": (size, changed, inode)}
            return Dataset.from_generator(squad_rows, features=FEATURES, gen_kwargs=content)
        # `data_files` is a pattern, in which "[1]" stands for 1, and "*" for other files too.
        return load_dataset(READERS[path.suffix], data_files=escape(str(path)), split="train", **options)


def notes_on(path: Path) -> list[str]:
    """Return what is to be told of how a table was read."""
    return list(layout_of(path).notes) if path.suffix in (".csv", ".tsv") else []


def _options(path: Path) -> dict[str, object]:
    """Return what `datasets` must be told to read a file."""
    if path.suffix not in (".csv", ".tsv"):
        if path.suffix != ".parquet":
            check_utf8(path)
        return {}
    layout = layout_of(path)
    if not layout.rows:
        raise ValueError(f"{path}, which is empty; allowed: a file with rows")
    return {
        "sep": layout.delimiter,
        "quoting": layout.quoting,
        "keep_default_na": False,
        "encoding": "utf-8-sig",
        "header": 0,
        "names": list(layout.names),
        "usecols": list(layout.columns),
        "index_col": False,
        "features": Features({name: Value("string") for name in layout.columns}),
    }


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn the many errors of a broken file into one."""
    try:
        with quiet():
            yield
    except (DatasetsError, pa.ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        message = f"{path}, which can't be read ({reason}); allowed: a complete table"
        if "no data" in reason:  # such as "[]"
            message = f"{path}, which is empty; allowed: a file with rows"
        raise ValueError(message) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Have `datasets` show no progress bar and log nothing, which would stand before an error's one line."""
    verbosity = datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.enable_progress_bars()
        datasets.logging.set_verbosity(verbosity)


def read_lines(path: Path) -> list[str]:
    """Read a .txt file of a text a line, without empty lines.

    Raises:
        ValueError: If there is no such file, it is not UTF-8, or holds no text.
    """
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    check_utf8(path)
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if not lines:
        raise ValueError(f"{path}, which is empty; allowed: a file with texts")
    return lines


def read_sentences(paths: Sequence[Path], column: str) -> Dataset:
    """Read raw text: one column of several tables, each different sentence once, everything else dropped."""
    tables = [read_table(path).select_columns(column).cast_column(column, Value("string")) for path in paths]
    texts = concatenate_datasets(tables)
    # Hashes instead of texts, which of a large corpus would fill the memory; the first row of each stays.
    hashes = np.fromiter(map(hash, values_of(texts, column)), np.int64, len(texts))
    return texts.select(np.sort(np.unique(hashes, return_index=True)[1]))
