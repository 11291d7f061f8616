"""Raw text as one stream of token ids on disk, tokenised once, and the blocks of one length that it is cut into."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.utils.data import Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.raw_text import HubText, Piece, ReadState, TextFiles

_VERSION = 1
"""Part of a stream's name; to be raised when the same text comes to give other ids, or to be read in other pieces."""
BATCH_CHARACTERS = 2**20
"""Characters that are tokenised together, at least."""
COMMIT_CHARACTERS = 2**24
"""Characters after which what was written is there to stay: a killed run goes on from there."""


class TokenBlocks(Dataset[dict[str, NDArray[np.int64]]]):
    """Blocks of one length, cut from a stream of token ids: [CLS], the next `max_length` - 2 ids, [SEP], no padding.

    Blocks run across documents, which a separator token divides (RoBERTa's "FULL-SENTENCES", Liu et al. 2019, section
    4.2, arXiv 1907.11692). What is left at the end of the stream and fills no block is dropped. An item has
    "input_ids" and "attention_mask", both int64 of shape (max_length,).

    Args:
        stream: A file that `token_stream` wrote.
        tokenizer: The tokenizer that it was written with; its special tokens frame each block.
        max_length: Tokens of a block, special tokens included.

    Raises:
        ValueError: If a block has no place for text, or the stream is shorter than a block.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data import TextFiles, TokenBlocks, token_stream
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "my": 3, "card": 4}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", sep_token="[SEP]")
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "text.txt").write_text("my card my card my card my card")
        ...     stream = token_stream(TextFiles([Path(folder, "text.txt")]), tokenizer, Path(folder))
        ...     blocks = TokenBlocks(stream, tokenizer, max_length=4)
        ...     len(blocks), blocks[0]["input_ids"].tolist()
        (2, [3, 4, 3, 4])
    """

    column_names = ("input_ids", "attention_mask")

    def __init__(self, stream: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        before, after = framing_tokens(tokenizer)
        if max_length <= len(before) + len(after):
            raise ValueError(f"max_length: {max_length}; allowed: {len(before) + len(after) + 1} or more")
        self._stream = stream
        self._dtype = np.dtype(stream.suffix[1:])
        self._inner = slice(len(before), max_length - len(after))
        self._frame = np.zeros(max_length, dtype=np.int64)
        self._frame[: self._inner.start], self._frame[self._inner.stop :] = before, after
        self._ids_of_block = self._inner.stop - self._inner.start
        ids = stream.stat().st_size // self._dtype.itemsize
        self._blocks = range(ids // self._ids_of_block)
        if not self._blocks:
            raise ValueError(f"{ids} tokens of raw text; allowed: {self._ids_of_block} or more, which fill a block")

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        start = self._blocks[index] * self._ids_of_block
        ids = self._frame.copy()
        ids[self._inner] = self._ids[start : start + self._ids_of_block]
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def split(self, validation_blocks: int) -> tuple[TokenBlocks, TokenBlocks]:
        """Hold out the last blocks of the stream.

        Args:
            validation_blocks: Their number.

        Returns:
            All blocks but those, and those.

        Raises:
            ValueError: If one of the two would be empty.
        """
        if not 0 < validation_blocks < len(self):
            raise ValueError(f"validation_blocks: {validation_blocks}; allowed: 1 to {len(self) - 1} of {len(self)}")
        train, validation = copy(self), copy(self)
        train._blocks, validation._blocks = self._blocks[:-validation_blocks], self._blocks[-validation_blocks:]
        return train, validation

    @cached_property
    def _ids(self) -> NDArray[np.uint16 | np.uint32]:
        return np.memmap(self._stream, dtype=self._dtype, mode="r")

    def __getstate__(self) -> dict[str, object]:
        # A memmap pickles as the whole of its content; copies and workers open the file anew.
        return {name: value for name, value in vars(self).items() if name != "_ids"}


def token_stream(source: TextFiles | HubText, tokenizer: PreTrainedTokenizerBase, cache: Path) -> Path:
    """Tokenise raw text once, and return the file of its ids; where it is there already, only look.

    The file holds the ids of all documents, in their order and without special tokens but one separator between each
    two, as numbers of the type that its ending names: uint16, or uint32 for vocabularies beyond 65,536 ids. Its name
    is a hash of the text and of the tokenizer; `max_length` is no part of it. It appears complete. A killed run goes
    on from its last commit (every 16 million characters) to the same bytes. Of several processes, one writes while
    the others wait, so all may call this without further agreement.

    Args:
        source: The text; call its `check` first for errors before any work.
        tokenizer: A fast tokenizer; whether it pads or cuts does not matter.
        cache: Folder of the file; made if missing.

    Returns:
        The file.

    Raises:
        ValueError: If the tokenizer is slow or has no separator token, or the text can't be read.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data import TextFiles, token_stream
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[SEP]": 2, "my": 3, "card": 4}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", sep_token="[SEP]")
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "text.txt").write_text(f"my card{chr(10) * 2}card")  # two documents
        ...     stream = token_stream(TextFiles([Path(folder, "text.txt")]), tokenizer, Path(folder))
        ...     stream.suffix, np.fromfile(stream, np.uint16).tolist()
        ('.uint16', [3, 4, 2, 4])
    """
    check_packable(tokenizer)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    separator = tokenizer.sep_token_id
    parts = [_VERSION, source.fingerprint(), backend.to_str(), separator]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    file = cache / f"{key}.{'uint16' if max(backend.get_vocab().values()) < 2**16 else 'uint32'}"
    if file.is_file():
        return file
    cache.mkdir(parents=True, exist_ok=True)
    lock = cache / f"{key}.lock"
    with FileLock(lock):
        if not file.is_file():
            _write(source, backend, separator, file)
    with suppress(OSError):  # whoever waits for it finds the file; Windows keeps what is open
        lock.unlink()
    return file


def check_packable(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer can make a stream of tokens; ValueError where not."""
    if not tokenizer.is_fast or tokenizer.sep_token_id is None:
        kind = f"{type(tokenizer).__name__}, {'a fast' if tokenizer.is_fast else 'a slow'} one"
        raise ValueError(
            f"tokenizer: {kind} with separator {tokenizer.sep_token}; allowed: a fast one with a separator token, or "
            "pack: false"
        )


@dataclass
class _Progress:
    """What of a stream is on disk.

    Attributes:
        ids: Number of ids.
        separate: Whether a separator belongs before the next id, which begins another document.
        position: How much of the source has been read, in its unit.
        state: With what reading goes on; None at the beginning.
    """

    ids: int = 0
    separate: bool = False
    position: int = 0
    state: ReadState | None = None

    @classmethod
    def read(cls, index: Path, partial: Path, item_bytes: int) -> _Progress:
        """Read it from an index; that of a beginning where there is none, or the ids that it tells of are not."""
        if not (index.is_file() and partial.is_file()):
            return cls()
        progress = cls(**json.loads(index.read_text(encoding="utf-8")))
        return progress if progress.ids * item_bytes <= partial.stat().st_size else cls()

    def write(self, index: Path) -> None:
        """Replace the index."""
        new = index.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            _flush(file)
        new.replace(index)


def _write(source: TextFiles | HubText, backend: Tokenizer, separator: int, path: Path) -> None:
    dtype = np.dtype(path.suffix[1:])
    partial, index = path.with_suffix(".partial"), path.with_suffix(".json")
    done = _Progress.read(index, partial, dtype.itemsize)
    bar = tqdm(desc="Tokenising", total=source.total, initial=done.position, unit=source.unit, unit_scale=True)
    with bar, partial.open("ab") as file:
        file.truncate(done.ids * dtype.itemsize)
        not_committed = 0
        for pieces in _batches(source.pieces(done.state)):
            file.write(np.array(_encode(pieces, backend, separator, done), dtype).tobytes())
            bar.update(done.position - bar.n)
            not_committed += sum(len(piece.text) for piece in pieces)
            if not_committed >= COMMIT_CHARACTERS:
                _flush(file)
                done.write(index)
                not_committed = 0
        _flush(file)
    partial.replace(path)
    index.unlink(missing_ok=True)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(pieces: list[Piece], backend: Tokenizer, separator: int, done: _Progress) -> list[int]:
    """Return the ids of pieces, with the separator between documents, and move `done` after them."""
    encodings = backend.encode_batch_fast([piece.text for piece in pieces], add_special_tokens=False)
    all_ids: list[int] = []
    for piece, encoding in zip(pieces, encodings, strict=True):
        ids = encoding.ids
        if ids and done.separate:
            all_ids.append(separator)
            done.separate = False
        all_ids += ids
        if piece.ends_document:
            done.separate = done.ids + len(all_ids) > 0
    done.ids += len(all_ids)
    done.position, done.state = pieces[-1].position, pieces[-1].state
    return all_ids


def _flush(file: IO[str] | IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def framing_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after one text; not every tokenizer's own methods tell."""
    text, framed = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next(start for start in range(len(framed)) if framed[start : start + len(text)] == text)
    return framed[:start], framed[start + len(text) :]
