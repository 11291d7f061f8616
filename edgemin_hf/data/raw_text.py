"""Raw text as a stream: documents of files, or of a dataset on the Hub, in pieces, never whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

from datasets import IterableDataset, load_dataset
from huggingface_hub import HfApi

from edgemin_hf.data.text_readers import READERS, ending_of, readable, text_of
from edgemin_hf.utils.content import sha256_of

_PIECE = 2**14
_HUB_TIMEOUT_S = 10.0
_FILE = "a complete file of UTF-8 text, JSON lines or Parquet, as its name says"
_HUB = "a dataset, configuration, split and revision that the Hub serves"


class ReadState(TypedDict):
    """Plain data with which reading goes on after a piece.

    Attributes:
        pieces: The pieces of all files that have been read; of the Hub's datasets, those of the document at hand.
        documents: The documents before it. Datasets only, as `dataset`.
        dataset: What `IterableDataset.load_state_dict` takes to go on with it.
    """

    pieces: int
    documents: NotRequired[int]
    dataset: NotRequired[dict[str, object]]


class Piece(NamedTuple):
    """A document, or a part of one that is longer than 16,384 characters.

    Attributes:
        text: The text.
        ends_document: Whether it is the last piece of its document.
        position: Bytes, or documents, of the whole that have been read with it.
        state: With what reading goes on after it.
    """

    text: str
    ends_document: bool
    position: int
    state: ReadState


class TextFiles:
    """Documents of files; their order is that of the files and of the rows.

    In .txt, blank lines separate documents. In .jsonl, .json (one object a line as well) and .parquet, each row is one.
    .txt and .jsonl may be compressed: .txt.zst, .jsonl.zst.

    Args:
        paths: The files.
        text_column: Column, or key, of the text in files of rows.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data import TextFiles
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.jsonl").write_text('{"text": "my card"}')
        ...     [piece.text for piece in TextFiles([Path(folder, "a.jsonl")]).pieces()]
        ['my card']
    """

    unit = "B"

    def __init__(self, paths: Sequence[Path], text_column: str = "text") -> None:
        self.paths = list(paths)
        self.text_column = text_column

    @property
    def total(self) -> int:
        """Bytes of all files as they lie there."""
        return sum(path.stat().st_size for path in self.paths)

    def check(self) -> None:
        """Check that every file is there and begins with a document; read no further.

        Raises:
            ValueError: If not; the message names value and what is allowed.
        """
        for path in self.paths:
            if next(self._pieces_of(path), None) is None:
                raise ValueError(f"{path}, which is empty; allowed: a file with text")

    def fingerprint(self) -> list[object]:
        """Say what the documents depend on: the bytes of the files by SHA-256, and how they are read.

        Raises:
            ValueError: If a file is not there.
        """
        parts: list[object] = [self.text_column]
        for path in self.paths:
            parts.append([ending_of(path), sha256_of(path)])
        return parts

    def pieces(self, state: ReadState | None = None) -> Iterator[Piece]:
        """Yield the text in pieces.

        Args:
            state: That of the piece to go on after; None begins at the beginning. What lies before is read again.

        Raises:
            ValueError: If a file is broken or a row has no text.
        """
        done = 0 if state is None else state["pieces"]
        numbered = enumerate(self._all_pieces(), start=1)
        return (Piece(*piece, {"pieces": number}) for number, piece in islice(numbered, done, None))

    def _all_pieces(self) -> Iterator[tuple[str, bool, int]]:
        before = 0
        for path in self.paths:
            for text, ends, position in self._pieces_of(path):
                yield text, ends, before + position
            before += path.stat().st_size

    def _pieces_of(self, path: Path) -> Iterator[tuple[str, bool, int]]:
        reader = READERS[ending_of(path)]
        # Around the pieces, not in the reader: it has handed out a document before it has read all of it.
        with readable(str(path), _FILE):
            for parts, position in reader(path, self.text_column):
                for text, ends in _cut(parts):
                    yield text, ends, position()


class HubText:
    """Documents of a dataset on the Hub, one a row, streamed: nothing is downloaded beforehand or kept.

    Args:
        dataset: Its id, such as org/name.
        config: Name of its configuration; None where it has but one.
        split: Name of the split.
        revision: Branch, tag or commit; None is the main branch.
        text_column: Column of the text.

    Example:
        >>> from edgemin_hf.data import HubText
        >>> text = HubText("org/name", "en", revision="0123456789abcdef0123456789abcdef01234567")
        >>> text.fingerprint()[:3]  # of a commit, it needs no network
        ['org/name', 'en', 'train']
    """

    unit = "documents"

    def __init__(
        self,
        dataset: str,
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        text_column: str = "text",
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.split = split
        self.revision = revision
        self.text_column = text_column

    @property
    def total(self) -> int | None:
        """Number of its documents, where the dataset tells."""
        splits = self._load().info.splits or {}
        return splits[self.split].num_examples if self.split in splits else None

    @cached_property
    def commit(self) -> str:
        """The commit that `revision` stands for now; the Hub is not asked where it is one itself.

        Raises:
            ValueError: If the Hub can't be reached or has no such dataset.
        """
        if self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        # A malformed id is a ValueError.
        with readable(self.dataset, _HUB, ValueError):
            sha = HfApi().dataset_info(self.dataset, revision=self.revision, timeout=_HUB_TIMEOUT_S).sha
        assert sha is not None  # noqa: S101 - the Hub tells it of every dataset
        return sha

    def check(self) -> None:
        """Check that the dataset is there and begins with a document; read no further.

        Raises:
            ValueError: If not; the message names value and what is allowed.
        """
        if next(self.pieces(), None) is None:
            raise ValueError(f"{self.dataset}, which is empty; allowed: a dataset with rows")

    def fingerprint(self) -> list[object]:
        """Say what the documents depend on: the dataset at a commit, and what is read of it."""
        return [self.dataset, self.config, self.split, self.commit, self.text_column]

    def pieces(self, state: ReadState | None = None) -> Iterator[Piece]:
        """Yield the text in pieces.

        Args:
            state: That of the piece to go on after; None begins at the beginning. Whole files before it are not
                downloaded again.

        Raises:
            ValueError: If the dataset can't be read or a row has no text.
        """
        dataset = self._load()
        before, documents, skipped = dataset.state_dict(), 0, 0
        if state is not None:
            before, documents, skipped = state["dataset"], state["documents"], state["pieces"]
            dataset.load_state_dict(before)
        with readable(self.dataset, _HUB):
            for row in dataset:
                text = text_of(row, self.text_column, f"row {documents + 1} of {self.dataset}")
                for number, (piece, ends) in enumerate(_cut([text]), start=1):
                    if number > skipped:
                        here: ReadState = {"dataset": before, "documents": documents, "pieces": number}
                        yield Piece(piece, ends, documents + ends, here)
                before, skipped = dataset.state_dict(), 0
                documents += 1

    def _load(self) -> IterableDataset:
        commit = self.commit
        # Its many complaints about names of configurations and splits are plain ValueErrors of several lines.
        with readable(self.dataset, _HUB, ValueError):
            return load_dataset(self.dataset, self.config, split=self.split, revision=commit, streaming=True)


def _cut(parts: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield a document in pieces of bounded length, and whether each is its last; line ends at its end are dropped.

    They begin with white space wherever they can, since to every tokenizer a word begins there.
    """
    text = ""
    for part in parts:
        text += part
        while len(text) > _PIECE:
            end = max(text.rfind(" ", 1, _PIECE), text.rfind("\n", 1, _PIECE))
            end = end if end > 0 else _PIECE
            yield text[:end], False
            text = text[end:]
    yield text.rstrip("\n"), True
