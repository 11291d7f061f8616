"""Where a table comes from: one file, several, or a split of a dataset of the Hub or of a folder.

What is not one file already becomes one, in the Hub's cache, so that all else reads files: by content, and offline once
it is there.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset, IterableDataset, concatenate_datasets, load_dataset
from huggingface_hub.constants import HF_HOME

from edgemin_hf.data.raw_text import HubText
from edgemin_hf.data.tables import READERS, read_table
from edgemin_hf.data.text_readers import readable
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.content import sha256_of, sha256_of_files

logger = logging.getLogger(__name__)

CACHE = Path(HF_HOME) / "edgemin" / "tables"
_PATTERN = re.compile(r"[*?\[]")
_FIRST_ROWS = re.compile(r"(\w+)\[:(\d+)\]")
"""A split's first rows, as `datasets` writes them."""
_UNKNOWN_SPLIT = re.compile(
    r'(?:Unknown split "?|Bad split: )(\w+)"?\. (?:Should be one of|Available splits:) \[(.*)\]'
)
"""What `datasets` says of one, if it is streamed or not."""
_NO_CLASS = -1
"""The number of a class that is not told, such as those of GLUE's test sets."""
_DATASET = "a dataset with such a configuration and revision that the Hub serves, or a folder of one"


def files_of(root: Path, named: str | Sequence[str]) -> list[Path]:
    """Return the files that a path, a pattern such as "data/*.csv", or several of them name; a pattern's in order.

    Raises:
        ValueError: If a pattern matches none, or a file is named twice.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data.sources import files_of
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("b.csv", "a.csv"):
        ...         Path(folder, name).touch()
        ...     [path.name for path in files_of(Path(folder), "*.csv")]
        ['a.csv', 'b.csv']
    """
    found: list[Path] = []
    for name in [named] if isinstance(named, str) else named:
        if not _PATTERN.search(name) or (root / name).exists():
            found.append(root / name)
            continue
        named_so = glob.glob(name, root_dir=root, recursive=True)  # brackets in the folder's own name are no pattern
        matched = sorted(path for path in (root / one for one in named_so) if path.is_file())
        if not matched:
            raise ValueError(f"{name}, which matches no file; allowed: a pattern of files that are there")
        found += matched
    twice = [path for number, path in enumerate(found) if path in found[:number]]
    if twice:
        raise ValueError(f"{twice[0]}, which is named twice; allowed: once")
    return found


def one_file(paths: Sequence[Path], read: Callable[[Path], Dataset] = read_table) -> Path:
    """Return one file of the rows of several, in their order; a single one as it is.

    Args:
        paths: The files.
        read: Reads one of several.

    Raises:
        ValueError: If one can't be read, or has other columns than the first, or values of another type.
    """
    if len(paths) == 1:
        return paths[0]
    key = [[path.suffix, sha256_of(path)] for path in paths]
    key += [] if read is read_table else [[read.__name__]]
    if not all(path.suffix in READERS for path in paths):  # such as sentences, which blank lines end
        if other := next((path for path in paths if path.suffix != paths[0].suffix), None):
            raise ValueError(f"{other} beside {paths[0].name}; expected: files of one ending")
        held = (pa.input_stream(path).read() for path in paths)  # of .txt.zst the text
        joined = b"\n\n".join(content.removeprefix(BOM_UTF8) for content in held)
        plain = Path(paths[0].name.removesuffix(".zst"))
        name = f"{plain.stem}-and-{len(paths) - 1}-more{plain.suffix}"
        return cached_file(key, name, lambda file: bool(file.write_bytes(joined)))
    name = f"{paths[0].stem}-and-{len(paths) - 1}-more.parquet"
    return cached_file(key, name, lambda file: _union(paths, read).to_parquet(file))


def _union(paths: Sequence[Path], read: Callable[[Path], Dataset]) -> Dataset:
    first, *others = tables = [read(path) for path in paths]
    for path, table in zip(paths[1:], others, strict=True):
        if set(table.column_names) != set(first.column_names):
            found, expected = ", ".join(table.column_names), ", ".join(first.column_names)
            raise ValueError(f"columns {found} of {path}; expected: those of {paths[0].name}: {expected}")
        for column, feature in first.features.items():
            if table.features[column] != feature:
                given = f"{table.features[column]} in column {column!r} of {path}"
                raise ValueError(f"{given}; expected: {feature}, as in {paths[0].name}")
    return concatenate_datasets(tables)


def split_file(
    root: Path, dataset: str, config: str | None, split: str, revision: str | None, label_column: str
) -> Path:
    """Return a file of a split's rows, but for those whose class is not told (-1).

    Args:
        root: What a dataset that is a folder lies in, or is relative to.
        dataset: Id of a dataset on the Hub, or a folder, of a table a split (dev.tsv) or of what `datasets` reads.
        config: Its configuration; None where it has one.
        split: Its split, or a part of it as `datasets` writes that: "train[:1000]".
        revision: Branch, tag or commit; None is the main branch. What was read before is there without the network.
        label_column: The column of the labels.

    Raises:
        ValueError: If there is no such dataset, configuration or split.
    """
    folder = root / dataset
    table = _table_of_split(folder, config, split) if folder.is_dir() else None
    if table is not None and (table.suffix != ".parquet" or _all_told(read_table(table), label_column)):
        return table  # others have no classes
    if folder.is_dir():
        state = sha256_of_files(path for path in folder.rglob("*") if path.is_file())[:40]
        source, commit = str(folder), None
    else:
        source, commit = dataset, _commit(dataset, revision)
        state = commit
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{Path(dataset).name}-{config or ''}-{split}").strip("-")

    def write(file: Path) -> None:
        rows = _split(source, config, split, commit) if table is None else read_table(table)
        kept = _with_class(rows, label_column)
        if len(rows) and not len(kept):
            raise ValueError(f"{split} of {dataset}, where no row has a label (-1); expected: a split with labels")
        kept.to_parquet(file)
        notes = [f"{dataset} at commit {commit}"] if commit else []
        if len(kept) < len(rows):
            notes.append(f"{len(rows) - len(kept):,} of {len(rows):,} rows without a label left out")
        _notes(file.parent).write_text(json.dumps(notes), encoding="utf-8")

    return cached_file([dataset if commit else "", config, split, state, label_column], f"{name}.parquet", write)


def _table_of_split(folder: Path, config: str | None, split: str) -> Path | None:
    """Return the one table of a split's name in the folder of its configuration, or where there is none, in its own."""
    place = folder / config if config and (folder / config).is_dir() else folder
    for name in (split, split.replace("validation", "dev")):
        found = [place / f"{name}{ending}" for ending in READERS if (place / f"{name}{ending}").is_file()]
        if len(found) == 1:
            return found[0]
    return None


def notes_on_source(path: Path) -> list[str]:
    """Return what is to be told of where the rows of a file came from, if that was a dataset."""
    file = _notes(path.parent)
    notes: list[str] = json.loads(file.read_text(encoding="utf-8")) if CACHE in path.parents and file.is_file() else []
    return notes


def _notes(folder: Path) -> Path:
    return folder / "notes.json"


@lru_cache
def _commit(dataset: str, revision: str | None) -> str:
    """Return the commit of a revision, or without the network the one that it was when it was last read."""
    known = CACHE / f"{hashlib.sha256(json.dumps([dataset, revision]).encode()).hexdigest()[:16]}.commit"
    try:
        commit = HubText(dataset, revision=revision).commit
    except ValueError:
        if not known.is_file():
            raise
        commit = known.read_text(encoding="utf-8")
        logger.warning(
            "%s: the Hub can't be reached; taken as it was when it was last read, commit %s", dataset, commit
        )
        return commit
    known.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(known, commit)
    return commit


def _split(source: str, config: str | None, split: str, commit: str | None) -> Dataset:
    first = _FIRST_ROWS.fullmatch(split)
    with readable(source, _DATASET, ValueError, TypeError):
        try:
            if commit is not None and first is not None:
                return _first_rows(load_dataset(source, config, split=first[1], revision=commit, streaming=True), first)
            return load_dataset(source, config, split=split, revision=commit)
        except ValueError as error:
            unknown = _UNKNOWN_SPLIT.search(str(error))
            if unknown is None:
                raise
            known = unknown[2].replace("'", "")
    raise ValueError(f"{split} of {source}, which has no such split; allowed: {known}")


def _first_rows(rows: IterableDataset, first: re.Match[str]) -> Dataset:
    """Return the first rows of a split, of whose files those are downloaded that hold them, and perhaps the next."""
    return Dataset.from_list(list(rows.take(int(first[2]))), features=rows.features)


def _with_class(rows: Dataset, column: str) -> Dataset:
    if not isinstance(rows.features.get(column), ClassLabel):
        return rows
    return rows.select([row for row, label in enumerate(rows[column]) if label not in (None, _NO_CLASS)])


def _all_told(rows: Dataset, column: str) -> bool:
    return len(_with_class(rows, column)) == len(rows)


def cached_file(key: object, name: str, write: Callable[[Path], object]) -> Path:
    """Return a file of the cache, which is written if it is not there; it appears complete or not at all.

    Args:
        key: What its content follows from, as JSON has it.
        name: Its name.
        write: Writes it.
    """
    folder = CACHE / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    file, partial = folder / name, folder / f".{os.getpid()}.{name}"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(file)
    return file
