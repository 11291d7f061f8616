"""Sentences that are lists of words as token ids: which piece stands for which word, and long ones in windows."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from edgemin_hf.runtime.words import aligned


@dataclass(frozen=True)
class Window:
    """A part of a sentence, as long as a model may read.

    Attributes:
        inputs: The tokenizer's columns, without padding.
        word_ids: For each token that is the first piece of a word, in the window where that word has the most context,
            the word's number; else `NO_WORD`. Each word that has pieces is in one window alone.
        inner_ids: Likewise for the pieces that go on with such a word.
    """

    inputs: dict[str, list[int]]
    word_ids: list[int]
    inner_ids: list[int]


def word_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that reads words as it reads them inside a text: the same one where it does so already.

    Byte-level ones, such as RoBERTa's, take a word without a space before it for another: they get the space before
    each word, the first one too, and are saved so.

    Raises:
        ValueError: If it is a slow one, which can't tell the pieces of a word.
    """
    if not tokenizer.is_fast:
        name = type(tokenizer).__name__
        raise ValueError(
            f"tokenizer: {name}, a slow one; allowed: a fast one (tokenizer.json), which aligns its pieces"
        )
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if not _without_space(state["pre_tokenizer"]) and tokenizer.truncation_side == "right":
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.truncation_side = "right"  # windows begin with the first word
    if not _without_space(state["pre_tokenizer"]):
        return tokenizer
    for part in _without_space(state["pre_tokenizer"]):
        part["add_prefix_space"] = True
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_prefix_space = True
    tokenizer.init_kwargs["add_prefix_space"] = True  # what `save_pretrained` writes
    return tokenizer


def _without_space(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the byte-level parts of a pre-tokenizer that put no space before a word."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [found for inner in part["pretokenizers"] for found in _without_space(inner)]
    return [part] if part["type"] == "ByteLevel" and not part["add_prefix_space"] else []


def windows(
    tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], max_length: int, stride: int
) -> list[list[Window]]:
    """Tokenise sentences, each as one window, or as several that overlap where it is longer.

    Args:
        tokenizer: The tokenizer, one of `word_tokenizer`.
        sentences: The words of each.
        max_length: Tokens of a window, special ones included.
        stride: Tokens that two windows have in common.

    Returns:
        The windows of each sentence.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.data.word_windows import windows
        >>> rules = Tokenizer(models.WordPiece({"[UNK]": 0, "card": 1, "##s": 2}, unk_token="[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> (window,), (first, second) = windows(tokenizer, [["card", "cards"], ["card"] * 5], max_length=3, stride=1)
        >>> window.inputs["input_ids"], window.word_ids, window.inner_ids
        ([1, 1, 2], [0, 1, -1], [-1, -1, 1])
        >>> first.word_ids, second.word_ids
        ([0, 1, 2], [-1, 3, 4])
    """
    encoded = tokenizer(
        [list(words) for words in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=max_length,
        stride=stride,
        return_overflowing_tokens=True,
        verbose=False,
    )
    parts: list[list[int]] = [[] for _ in sentences]
    for row, sentence in enumerate(encoded["overflow_to_sample_mapping"]):
        parts[sentence].append(row)
    columns = [name for name in encoded if name != "overflow_to_sample_mapping"]
    found = []
    for rows in parts:
        ids = aligned([encoded.encodings[row].word_ids for row in rows], stride)
        inputs = [{name: encoded[name][row] for name in columns} for row in rows]
        found.append([Window(one, *both) for one, both in zip(inputs, ids, strict=True)])
    return found
