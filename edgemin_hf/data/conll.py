"""CoNLL files: a word a line with its columns, sentences between blank lines."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from datasets import Dataset, Features, Sequence, Value

from edgemin_hf.utils.delimited import check_utf8

CONLL = (".conll", ".txt")
"""How their names end."""
_NEW_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path, tokens_column: str, tags_column: str) -> Dataset:
    """Read sentences from a file with a word a line, its first column, and its tag, the last.

    Columns are divided by tabs, or else by spaces. Lines that begin with -DOCSTART- are left out.

    Args:
        path: The file, UTF-8.
        tokens_column: Name of the column of words in what is returned.
        tags_column: Likewise of the tags.

    Returns:
        A row a sentence: two lists of strings of one length.

    Raises:
        ValueError: If there is no such file, it holds no sentence, or a line has no two columns.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data.conll import read_conll
        >>> lines = ["-DOCSTART- -X- O", "", "Lisbon NNP B-LOC", "waits VBZ O", ""]
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "rows.conll").write_text(chr(10).join(lines))
        ...     read_conll(Path(folder, "rows.conll"), "tokens", "tags")[0]
        {'tokens': ['Lisbon', 'waits'], 'tags': ['B-LOC', 'O']}
    """
    if not path.is_file():
        raise ValueError(f"{path}, which is no file; allowed: an existing file")
    status = path.stat()
    return _read(path, tokens_column, tags_column, (status.st_size, status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=8)
def _read(path: Path, tokens_column: str, tags_column: str, as_it_is: tuple[int, ...]) -> Dataset:
    """Read a file, once for a process while it stays as it is."""
    check_utf8(path)
    tokens: list[list[str]] = [[]]
    tags: list[list[str]] = [[]]
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith(_NEW_DOCUMENT):
            if tokens[-1]:
                tokens.append([])
                tags.append([])
            continue
        columns = line.split("\t") if "\t" in line else line.split()
        if len(columns) < 2:
            raise ValueError(f"line {number} of {path}, {line.strip()!r}; expected: a word, and its tag after it")
        tokens[-1].append(columns[0].strip())
        tags[-1].append(columns[-1].strip())
    if not tokens[-1]:
        del tokens[-1], tags[-1]
    if not tokens:
        raise ValueError(f"{path}, which is empty; allowed: a file with sentences")
    strings = Sequence(Value("string"))
    return Dataset.from_dict(
        {tokens_column: tokens, tags_column: tags}, features=Features({tokens_column: strings, tags_column: strings})
    )
