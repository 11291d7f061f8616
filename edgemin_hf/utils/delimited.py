"""Tables of text (.csv, .tsv): how a file is laid out, and all in it that would be misread without a word."""

from __future__ import annotations

import codecs
import csv
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from _csv import Reader

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_ENCODING = "utf-8-sig"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Layout:
    """How a file of cells is to be read.

    Attributes:
        delimiter: What stands between cells.
        names: A name for each cell of a row; those of columns without one are made up.
        columns: The columns that have a name.
        rows: Number of rows, the header left out.
        notes: What its reader is to be told.
    """

    delimiter: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int
    notes: tuple[str, ...]

    @property
    def quoting(self) -> Literal[0, 3]:
        """How cells are quoted, as the module `csv` says it."""
        return _quoting(self.delimiter)


def layout_of(path: Path) -> Layout:
    """Look at every row of a .csv or .tsv file, and return how it is to be read.

    A byte order mark is no part of the first name. A .csv whose header has semicolons or tabs and no commas is read so.
    Columns without a name (an index, or separators at the ends of lines) are left out.

    Raises:
        ValueError: If the file is not UTF-8, or a row has more or fewer cells than the header, a quote is not closed, a
            name stands twice, or a character is NUL; the message names file and line.
    """
    status = path.stat()
    return _layout(path, status.st_size, status.st_mtime_ns)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a .csv or .tsv file, their cells by the names of their columns.

    Raises:
        ValueError: As `layout_of`.
    """
    layout = layout_of(path)
    with path.open(encoding=_ENCODING, newline="") as file, _fields_of_any_length():
        reader = csv.reader(file, delimiter=layout.delimiter, quoting=layout.quoting, strict=True)
        for number, (_, cells) in enumerate(_rows(reader, path)):
            if number:
                yield dict(zip(layout.names, cells, strict=False))


@lru_cache(maxsize=64)
def _layout(path: Path, size: int, changed: int) -> Layout:
    check_utf8(path)
    with path.open(encoding=_ENCODING, newline="") as file:
        first = file.readline()
    delimiter = "\t" if path.suffix == ".tsv" else next((each for each in _DELIMITERS if each in first), ",")
    with path.open(encoding=_ENCODING, newline="") as file, _fields_of_any_length():
        quoting = _quoting(delimiter)
        reader = csv.reader(_without_nul(file, path), delimiter=delimiter, quoting=quoting, strict=True)
        rows = _rows(reader, path)
        _, header = next(rows, (0, []))
        names = [name.strip() for name in header]
        twice = [name for name, count in Counter(names).items() if name and count > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} of {path}, which stands there twice; expected: different names")
        named = max((index for index, name in enumerate(names, start=1) if name), default=0)
        width, count, doubled = len(names), 0, 0
        for line, cells in rows:
            if len(cells) < named or any(cell.strip() for cell in cells[len(names) :]):
                raise ValueError(_ragged(path, line, len(cells), named, delimiter))
            width = max(width, len(cells))
            count += 1
            doubled += quoting == csv.QUOTE_NONE and any(map(_is_quoted, cells))
    unnamed = {index: f"Unnamed: {index}" for index in range(width) if index >= len(names) or not names[index]}
    all_names = tuple(unnamed.get(index) or names[index] for index in range(width))
    notes = _notes(path, delimiter, len(unnamed), doubled)
    return Layout(delimiter, all_names, tuple(name for name in names if name), count, notes)


def _quoting(delimiter: str) -> Literal[0, 3]:
    """Return how cells are quoted: beside tabs quotes are characters like any other."""
    return csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL


def _rows(reader: Reader, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each row begins in, and its cells; blank lines are none."""
    line = 1
    try:
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote that is not closed" if "end of data" in str(error) else f"quotes that do not fit ({error})"
        raise ValueError(
            f"line {line} of {path}: {reason}; expected: quotes around a complete cell, and doubled inside it"
        ) from None


def _ragged(path: Path, line: int, cells: int, expected: int, delimiter: str) -> str:
    hint = "; quotes in .tsv are characters like any other" if delimiter == "\t" else ", text with a {} in quotes"
    return f"line {line} of {path}: {cells} cell(s); expected: {expected}, as the header has" + hint.format(
        _DELIMITERS[delimiter].removesuffix("s")
    )


def _is_quoted(cell: str) -> bool:
    """Return whether a cell looks as if a program had quoted it: quotes around it, and doubled ones inside."""
    inner = cell[1:-1]
    return cell[:1] == cell[-1:] == '"' and '""' in inner and '"' not in inner.replace('""', "")


def _notes(path: Path, delimiter: str, unnamed: int, doubled: int) -> tuple[str, ...]:
    notes = []
    if delimiter != ("\t" if path.suffix == ".tsv" else ","):
        notes.append(f"its columns are taken to be separated by {_DELIMITERS[delimiter]}")
    if unnamed:
        notes.append(f"{unnamed} column(s) without a name left out")
    if doubled:
        notes.append(f"{doubled} row(s) with cells in quotes, which in .tsv are characters like any other")
    return tuple(notes)


def _without_nul(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise ValueError(f"line {number} of {path}: a NUL character; expected: text")
        yield line


def check_utf8(path: Path) -> None:
    """Check that all lines of a file are UTF-8.

    Raises:
        ValueError: If not; the message names the first line that is not.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_UTF16):
                raise ValueError(f"{path}, which is UTF-16; expected: UTF-8")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                place = f"line {number} of {path}, which is not UTF-8 (byte 0x{line[error.start]:02x})"
                raise ValueError(f"{place}; expected: UTF-8") from None


@contextmanager
def _fields_of_any_length() -> Iterator[None]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
