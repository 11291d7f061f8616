"""Texts as token ids, by `tokenizer.json` alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from edgemin_hf.runtime.cutting import Text, cut
from edgemin_hf.runtime.graph import TOKEN_TYPES

Strategy = Literal["longest_first", "only_first", "only_second"]


class Reader:
    """Tokenise texts, and make the arrays of them that a graph takes. It never changes, so threads may share it.

    Args:
        file: The `tokenizer.json`.
        max_length: Tokens after which a text is cut, or of a window.
        stride: Tokens that two windows of a text have in common.
        strategy: What of a pair is cut.
        cuts_left: Whether the beginning of a text is cut.
        pad: The id that texts of a batch are filled up with.
        token_types: Whether the model is told the tokenizer's token types; else they are 0.

    Attributes:
        tokenizer: The tokenizer, which cuts and does not pad.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from edgemin_hf.runtime.reader import Reader
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "my": 2, "card": 3}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> with TemporaryDirectory() as folder:
        ...     rules.save(f"{folder}/tokenizer.json")
        ...     reader = Reader(Path(folder, "tokenizer.json"), max_length=3)
        >>> reader.arrays(reader.read("my card"))["input_ids"].tolist()
        [[2, 3]]
        >>> reader.batch(reader.read_all(["card", "my my my my card"]))["input_ids"].tolist()
        [[3, 0, 0], [2, 2, 2]]
    """

    def __init__(
        self,
        file: Path,
        max_length: int,
        *,
        stride: int = 0,
        strategy: Strategy = "longest_first",
        cuts_left: bool = False,
        pad: int = 0,
        token_types: bool = True,
    ) -> None:
        self.tokenizer = Tokenizer.from_file(str(file))
        self.tokenizer.no_padding()
        side = "left" if cuts_left else "right"
        self.tokenizer.enable_truncation(max_length, stride=stride, strategy=strategy, direction=side)
        self._file, self._max_length, self._cuts_left = file, max_length, cuts_left
        self._pad, self._types = pad, token_types
        self._windows = stride > 0 or strategy != "longest_first"

    @cached_property
    def whole(self) -> Tokenizer:
        """The tokenizer as it reads texts of any length."""
        tokenizer = Tokenizer.from_file(str(self._file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.whole.encode(text, add_special_tokens=False).ids
        return ids

    def _short(self, text: Text) -> Text:
        # The tokenizer would build each part of the one text with each of the other. Of windows nothing is cut.
        if isinstance(text, str) or self._windows or sum(map(len, text)) <= self._max_length:
            return text
        return cut(text, self._ids, self._max_length, self._cuts_left)

    def read(self, text: Text) -> Encoding:
        """Tokenise a text or a pair; its further windows are the `overflowing` of what it gives."""
        text = self._short(text)
        return self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode(*text)

    def read_all(self, texts: Sequence[Text]) -> list[Encoding]:
        """Tokenise texts or pairs, many at once."""
        encodings: list[Encoding] = self.tokenizer.encode_batch([self._short(text) for text in texts])
        return encodings

    def arrays(self, encoding: Encoding) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of one text, int64 (1, length)."""
        ids = np.array([encoding.ids], dtype=np.int64)
        arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        return arrays | {TOKEN_TYPES: np.array([encoding.type_ids], dtype=np.int64)} if self._types else arrays

    def batch(
        self, encodings: Sequence[Encoding], shape: tuple[int, int] | None = None
    ) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of texts, filled up on the right: int64 (texts, longest length), or of a given shape."""
        shape = shape or (len(encodings), max(map(len, encodings)))
        ids, mask, types = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, encoding in enumerate(encodings):
            length = len(encoding)
            ids[row, :length], mask[row, :length] = encoding.ids, 1
            if self._types:
                types[row, :length] = encoding.type_ids
        return {"input_ids": ids, "attention_mask": mask, TOKEN_TYPES: types}
