"""Tables of formatted cells, for whichever medium."""

from __future__ import annotations

from typing import NamedTuple

TEXT_COLUMNS = frozenset(
    {
        "model",
        "runtime",
        "precision",
        "stage",
        "validation metric",
        "file",
        "runs in",
        "way",
        "label",
        "further metric",
        "test set",
        "group",
        "texts",
    }
)
"""Headers of the columns that hold words, which are aligned to the left; numbers go to the right."""


class Table(NamedTuple):
    """A table of formatted cells, for whichever medium: each row has one cell for each of the `headers`."""

    headers: list[str]
    rows: list[list[str]]


class CaptionedTable(NamedTuple):
    """A table, and what it holds in a sentence without its full stop."""

    caption: str
    table: Table


def text_table(table: Table) -> str:
    """Lay a table out for a terminal, words to the left and numbers to the right."""
    headers, rows = table
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = []
    for cells in (headers, ["-" * width for width in widths], *rows):
        padded = (
            cell.ljust(width) if header in TEXT_COLUMNS else cell.rjust(width)
            for header, cell, width in zip(headers, cells, widths, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def capitalized(text: str) -> str:
    """Return a text as a sentence begins, but for names such as nDCG."""
    return text[:1].upper() + text[1:] if text[:2].islower() else text
