"""Tables of sentences: words and their tags, read from lists, CoNLL files or spans of characters, and checked."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Value
from datasets import Sequence as ListOf

from edgemin_hf.data.conll import CONLL, read_conll
from edgemin_hf.data.spans import tagged_words, words_of
from edgemin_hf.data.tables import READERS, check_table, read_lines, read_table, values_of
from edgemin_hf.tasks.entities import Scheme, as_iob2, check_tag
from edgemin_hf.tasks.labels import classes_of

Columns = tuple[str, str]
"""The names of two columns: of words and tags, or of texts and spans."""

_SHOWN = 80
"""Characters of a value in a message."""


def read_sentences(path: Path, columns: Columns, spans: Columns | None, scheme: Scheme) -> Dataset:
    """Read sentences as lists of words and of tags in IOB2.

    A table that holds words and tags already is taken as it is, also where spans are asked for.

    Args:
        path: A CoNLL file, or a table.
        columns: The columns of words and tags, of a table and of what is returned.
        spans: The columns of texts and spans; None where there are words and tags.
        scheme: How the tags tell entities.

    Returns:
        The two columns; tags in IOB2 keep the names of their `ClassLabel`.

    Raises:
        ValueError: If the file can't be read, or lacks a column; or where tags are made of others, if a row won't do.
    """
    table = _table(path, columns)
    if set(columns) <= set(table.column_names):
        spans = None
    for column in spans or columns:
        if column not in table.column_names:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(table.column_names)}")
    if spans is None and scheme == "iob2":
        return table.select_columns(list(columns))
    status = path.stat()
    return _made(path, columns, spans, scheme, (status.st_size, status.st_mtime_ns, status.st_ino))


def _table(path: Path, columns: Columns) -> Dataset:
    if path.suffix in CONLL:
        return read_conll(path, *columns)
    if path.suffix not in READERS:
        raise ValueError(f"{path}; allowed: a file that ends with {', '.join([*READERS, *CONLL])}")
    return read_table(path)


@lru_cache(maxsize=8)
def _made(path: Path, columns: Columns, spans: Columns | None, scheme: Scheme, as_it_is: tuple[int, ...]) -> Dataset:
    """Make words and tags of spans, or of tags of another scheme, once for a process while a file stays as it is."""
    table = _table(path, columns)
    words: list[list[str]] = []
    tags: list[list[str]] = []
    if spans is None:
        check_sentences(table, columns, path, scheme)
        words = list(table[columns[0]])
        tags = [as_iob2(found, scheme) for found in named_tags(table, columns[1])]
    else:
        for row, (text, values) in enumerate(zip(*(values_of(table, name) for name in spans), strict=True), start=1):
            try:
                if not isinstance(text, str):
                    raise ValueError(f"{_told(text)} in column {spans[0]!r}; allowed: text")
                found = tagged_words(text, values)
            except ValueError as error:
                raise ValueError(f"row {row} of {path}: {error}") from None
            words.append(found[0])
            tags.append(found[1])
    lists = ListOf(Value("string"))
    return Dataset.from_dict(dict(zip(columns, (words, tags), strict=True)), Features(dict.fromkeys(columns, lists)))


def read_words(path: Path, tokens_column: str, text_column: str) -> Dataset:
    """Read sentences without tags, as lists of words; those without a word are left out.

    Args:
        path: A CoNLL file (.conll), a table, or a .txt file of a text a line.
        tokens_column: The column of words, of a table and of what is returned.
        text_column: The column of texts of a table without words, which are divided into some as spans are.

    Raises:
        ValueError: If the file can't be read, has no sentence, or lacks both columns.
    """
    if path.suffix == ".conll":
        words = read_conll(path, tokens_column, "tags")[tokens_column][:]
    elif path.suffix == ".txt":
        words = list(map(_divided, read_lines(path)))
    elif tokens_column in (table := read_table(path)).column_names:
        for row, found in enumerate(values_of(table, tokens_column), start=1):
            _check_words(found, f"column {tokens_column!r}, row {row} of {path}")
        words = table[tokens_column][:]
    else:
        check_table(path, text_column)
        words = [_divided(str(text)) for text in values_of(table, text_column)]
    features = Features({tokens_column: ListOf(Value("string"))})
    return Dataset.from_dict({tokens_column: [one for one in words if one]}, features)


def _divided(text: str) -> list[str]:
    return [text[start:end] for start, end in words_of(text)]


def _check_words(found: object, place: str) -> None:
    if not isinstance(found, list):
        raise ValueError(f"{_told(found)} in {place}; allowed: a list of words")
    if not found or not all(isinstance(word, str) for word in found):
        raise ValueError(f"{_told(found)} in {place}; allowed: a list of words, one or more")


def named_tags(table: Dataset, column: str) -> list[list[str]]:
    """Return the tags of each sentence by name; they were checked."""
    classes, found = classes_of(table, column), list(table[column])
    return found if classes is None else [[classes.names[number] for number in tags] for tags in found]


def check_sentences(table: Dataset, columns: Columns, path: Path, scheme: Scheme = "iob2") -> None:
    """Check that each row holds words, and as many tags of a scheme.

    Raises:
        ValueError: If not, or there is no row; one line that names column, row and file.
    """
    if not len(table):
        raise ValueError(f"{path}, which is empty; allowed: a file with sentences")
    tokens_column, tags_column = columns
    classes = classes_of(table, tags_column)
    for name in [] if classes is None else classes.names:
        _check_tag(name, scheme, f"the classes of column {tags_column!r} of {path}")
    known = set[object]()
    for row, (words, tags) in enumerate(zip(*(table[name] for name in columns), strict=True), start=1):
        _check_words(words, f"column {tokens_column!r}, row {row} of {path}")
        if not isinstance(tags, list):
            raise ValueError(f"{_told(tags)} in column {tags_column!r}, row {row} of {path}; allowed: a list of tags")
        if len(words) != len(tags):
            raise ValueError(f"row {row} of {path}: {len(words)} words and {len(tags)} tags; expected: one a word")
        for tag in tags:
            if not isinstance(tag, str | int) or tag not in known:
                _check_value(tag, classes, scheme, f"column {tags_column!r}, row {row} of {path}")
                known.add(tag)


def _check_value(tag: object, classes: ClassLabel | None, scheme: Scheme, place: str) -> None:
    if classes is not None and isinstance(tag, int) and tag >= 0:
        return
    if classes is not None or not isinstance(tag, str):
        raise ValueError(f"{tag!r} in {place}; allowed: tags by name, or the numbers of a ClassLabel (.parquet)")
    _check_tag(tag, scheme, place)


def _check_tag(tag: str, scheme: Scheme, place: str) -> None:
    try:
        check_tag(tag, scheme)
    except ValueError as error:
        told, _, allowed = str(error).partition("; ")
        raise ValueError(f"{told} in {place}; {allowed}") from None


def _told(value: object) -> str:
    return repr(value) if len(repr(value)) <= _SHOWN else f"{repr(value)[:_SHOWN]}..."
