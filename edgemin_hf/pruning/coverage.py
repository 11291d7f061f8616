"""What a vocabulary that was cut makes of texts: how much of them becomes smaller pieces, and how much is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from transformers import PreTrainedTokenizerBase

_BATCH = 1024


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """Return the share of texts' pieces that a tokenizer has no token for: what a model can't read.

    Args:
        tokenizer: The tokenizer, of a cut vocabulary or any other.
        texts: The texts.

    Returns:
        The share, special tokens aside; 0 without any pieces, and where nothing can be unknown, as of bytes.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.pruning import unknown_share
        >>> rules = Tokenizer(models.WordPiece({"[UNK]": 0, "my": 1, "c": 2, "##a": 3}, unk_token="[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> unknown_share(tokenizer, ["my ca", "ca 東京"])
        0.16666666666666666
    """
    unknown, every = tokenizer.unk_token_id, 0
    found = 0
    for ids in _pieces(tokenizer, texts):
        every += len(ids)
        found += ids.count(unknown)
    return found / max(1, every)


def split_share(before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """Return the share of texts' pieces that a full vocabulary has whole, and a cut one writes as smaller pieces.

    Args:
        before: The tokenizer before the cut.
        after: The tokenizer after it.
        texts: The texts.

    Returns:
        The share of the pieces that there were before the cut.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.pruning import split_share
        >>> def tokenizer(*pieces):
        ...     rules = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        ...     rules.pre_tokenizer = pre_tokenizers.Whitespace()
        ...     return PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]")
        >>> before, after = tokenizer("[UNK]", "a", "##b", "my", "ab"), tokenizer("[UNK]", "a", "##b", "my")
        >>> split_share(before, after, ["my ab", "my a"])
        0.25
    """
    left = set(after.get_vocab())
    gone = {id for token, id in before.get_vocab().items() if token not in left}
    every = found = 0
    for ids in _pieces(before, texts):
        every += len(ids)
        found += sum(id in gone for id in ids)
    return found / max(1, every)


def _pieces(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[list[int]]:
    stream = iter(texts)
    while batch := list(islice(stream, _BATCH)):
        yield from tokenizer(batch, add_special_tokens=False, truncation=False, padding=False, verbose=False)[
            "input_ids"
        ]
