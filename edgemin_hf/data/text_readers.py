"""Files of text as documents: one reader a format, which holds a part of the file at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pyarrow as pa
from datasets.exceptions import DatasetsError
from pyarrow import parquet

_LINE_PART = 2**14

Document = tuple[Iterable[str], Callable[[], int]]
"""A document's text in parts, of which only one is in memory at a time, and how many bytes of its file are read."""


def _paragraphs(path: Path, column: str) -> Iterator[Document]:
    with _open_text(path) as (lines, position):
        # Lines are read in pieces too: a file may be one line.
        parts = iter(lambda: lines.readline(_LINE_PART), "")
        for is_document, document in groupby(parts, key=lambda line: bool(line.strip())):
            if is_document:
                yield document, position


def _json_lines(path: Path, column: str) -> Iterator[Document]:
    with _open_text(path) as (lines, position):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"line {number} of {path}"
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{place}, which is no JSON ({error}); allowed: an object a line") from None
                text = text_of(row, column, place)
                # JSON can spell half of a surrogate pair, which is no character and which no tokenizer takes.
                yield [text.encode(errors="replace").decode()], position


def _parquet_rows(path: Path, column: str) -> Iterator[Document]:
    # Without a buffer of its own a row group's column is read whole, which may be all of the file.
    with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(names)}")
        row, rows, size = 0, file.metadata.num_rows, path.stat().st_size

        def position() -> int:
            read: int = size * row // rows
            return read

        for batch in file.iter_batches(batch_size=64, columns=[column]):
            for text in batch.column(0).to_pylist():
                row += 1
                yield [text_of({column: text}, column, f"row {row} of {path}")], position


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {
    ".txt": _paragraphs,
    ".txt.zst": _paragraphs,
    ".jsonl": _json_lines,
    ".jsonl.zst": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet_rows,
}
"""File endings that can be read, and the reader of each, which takes the file and the column of its text."""


def ending_of(path: Path) -> str:
    """Return the ending of a file's name that tells its format.

    Raises:
        ValueError: If there is no such file, or none of its endings is known.
    """
    ending = next((ending for ending in READERS if path.name.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"{path}; allowed: a file that ends with {', '.join(READERS)}")
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    return ending


@contextmanager
def _open_text(path: Path) -> Iterator[tuple[io.TextIOWrapper, Callable[[], int]]]:
    """Open a text file, decompressed; the second is the number of its bytes that have been read."""
    with pa.OSFile(str(path)) as raw:
        # Arrow's zstd tells of a file that ends too early; the package zstandard takes it for the whole.
        stream = pa.CompressedInputStream(raw, "zstd") if path.suffix == ".zst" else raw
        with io.TextIOWrapper(stream, encoding="utf-8") as lines:
            yield lines, raw.tell


def text_of(row: object, column: str, place: str) -> str:
    """Return the text of a row.

    Args:
        row: The row, which should be a dict.
        column: Its key of the text.
        place: Where the row stands, for errors.

    Raises:
        ValueError: If it has none.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{place}, which is no object; allowed: an object with {column!r}")
    if column not in row:
        raise ValueError(f"column {column!r} of {place}; allowed: {', '.join(row)}")
    text = row[column]
    if not isinstance(text, str):
        raise ValueError(f"{text!r} in column {column!r}, {place}; allowed: text")
    return text


@contextmanager
def readable(name: str, allowed: str, *more: type[Exception]) -> Iterator[None]:
    """Turn the many errors of text that can't be read, and some `more`, into one line."""
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException, DatasetsError, *more) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name}, which can't be read ({reason}); allowed: {allowed}") from None
