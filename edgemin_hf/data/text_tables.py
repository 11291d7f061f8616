"""Texts alone, as tasks without labels learn from them: of files of text and of tables, each different one once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from datasets import Dataset, Features, Value

from edgemin_hf.data.sentences import sentences_in
from edgemin_hf.data.tables import check_table, read_lines, read_table, values_of


def read_texts(
    path: Path, columns: Sequence[str], usual: Sequence[str] = (), *, split_sentences: bool = False
) -> Iterator[str]:
    """Yield the texts of a file, those of several columns of a table one column after the other.

    Args:
        path: A .txt file with a text a line, or a table.
        columns: The columns of a table that hold texts; without any those of `usual` that it has, else `text`.
        usual: Columns that a table may have.
        split_sentences: Whether .txt, and .txt.zst, hold documents between blank lines, whose sentences are the texts.

    Raises:
        ValueError: If the file can't be read, or lacks a column.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data.text_tables import read_texts
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.jsonl").write_text('{"text": "my card"}')
        ...     list(read_texts(Path(folder, "a.jsonl"), ["text"]))
        ['my card']
    """
    if split_sentences and path.name.endswith((".txt", ".txt.zst")):
        yield from sentences_in(path)
    elif path.suffix == ".txt":
        yield from read_lines(path)
    else:
        table = read_table(path)
        wanted = list(columns) or [name for name in usual if name in table.column_names] or ["text"]
        check_table(path, *wanted)
        yield from (str(text) for column in wanted for text in values_of(table, column))


def distinct_texts(paths: Sequence[Path], texts: Iterable[Iterable[str]], column: str) -> Dataset:
    """Return each different text of some files once, under a column's name; ValueError where there is none.

    Args:
        paths: The files, to tell.
        texts: The texts of each.
        column: The name.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.data.text_tables import distinct_texts
        >>> distinct_texts([Path("a.txt")], [["my card", " ", "my card"]], "text")["text"][:]
        ['my card']
    """
    found = dict.fromkeys(text for text in chain.from_iterable(texts) if text.strip())
    if not found:
        raise ValueError(f"{paths[0]}, which holds no text; allowed: a file with texts")
    return Dataset.from_dict({column: list(found)}, features=Features({column: Value("string")}))
