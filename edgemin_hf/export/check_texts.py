"""The texts that a graph is checked on: enough for chance to even out, and some as long as the model can read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, count, cycle, islice, product
from math import isqrt

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.data.tokenization import encode
from edgemin_hf.modeling.tokenizers import longest_text

ENOUGH = 64
"""Of fewer texts several may lie on the edge of a grid by chance, see `docs/experiments.md`."""
SHORT = 128
"""Tokens after which these are cut: what is far into a long text is checked on long ones."""
_BATCH = 16
_LONG_TEXTS = 5
_ATTENTION_SCORES = 2**27
"""Of a layer, at most: half a gibibyte in each of two runtimes. Longer texts, of thousands of tokens, are cut there."""

Encoded = dict[str, NDArray[np.int64]]
"""A batch of tokenised texts, int64 (batch, length) each."""


def enough_texts(texts: Sequence[Text], least: int = ENOUGH) -> list[Text]:
    """Return texts, followed by as many combinations of them as make `least`: the same ones for the same texts.

    Args:
        texts: Texts, or pairs of texts, at least one.
        least: How many are enough.

    Returns:
        All that were given, and at least so many.

    Raises:
        ValueError: If there are none.

    Example:
        >>> from edgemin_hf.export.check_texts import enough_texts
        >>> enough_texts(["my card", "where"], 5)
        ['my card', 'where', 'my card my card', 'where my card', 'my card where']
    """
    if not texts:
        raise ValueError("texts: none; allowed: 1 or more")
    combined = (_joined(parts) for length in count(2) for parts in _combinations(texts, length))
    return [*texts, *islice(combined, max(0, least - len(texts)))]


def _combinations(texts: Sequence[Text], length: int) -> Iterator[tuple[Text, ...]]:
    # The first place turns fastest: every text is there again soon.
    return (parts[::-1] for parts in product(texts, repeat=length))


def _joined(texts: Sequence[Text]) -> Text:
    """Join texts, or the firsts and the seconds of pairs."""
    pairs = [(text, "") if isinstance(text, str) else text for text in texts]
    first, second = (" ".join(part for part in parts if part) for parts in zip(*pairs, strict=True))
    return first if all(isinstance(text, str) for text in texts) else (first, second)


def short_batches(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, texts: Sequence[Text]
) -> Iterator[Encoded]:
    """Yield texts in padded batches, cut after `SHORT` tokens or what the model can read."""
    longest = min(SHORT, longest_text(tokenizer, config))
    for start in range(0, len(texts), _BATCH):
        yield _encoded(tokenizer, texts[start : start + _BATCH], longest)


def long_batches(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, texts: Sequence[Text], max_length: int | None = None
) -> Iterator[Encoded]:
    """Yield five texts, as long as the model or the task allows and half of it in turn, padded where they go together.

    Args:
        tokenizer: The model's tokenizer.
        config: The model's configuration.
        texts: What they are joined from, each from another one on.
        max_length: Tokens after which the task cuts its texts; None where it does not say.

    Yields:
        Batches, of as many texts as memory allows.
    """
    longest = min(longest_text(tokenizer, config), isqrt(_ATTENTION_SCORES // config.num_attention_heads))
    longest = longest if max_length is None else min(longest, max_length)
    lengths = [len(ids) for ids in encode(tokenizer, texts, longest, add_special_tokens=False)["input_ids"]]
    spoken = [index for index, size in enumerate(lengths) if size] or range(len(texts))
    texts, lengths = [texts[index] for index in spoken], [max(1, lengths[index]) for index in spoken]
    rows: list[Text] = []
    for row in range(_LONG_TEXTS):
        first = row * len(texts) // _LONG_TEXTS
        order = [*range(first, len(texts)), *range(first)]
        number = _number([lengths[index] for index in order], longest if row % 2 == 0 else longest // 2)
        rows.append(_joined([texts[index] for index in islice(cycle(order), number)]))
    size = max(1, _ATTENTION_SCORES // (config.num_attention_heads * longest**2))
    for start in range(0, len(rows), size):
        yield _encoded(tokenizer, rows[start : start + size], longest)


def _number(lengths: Sequence[int], tokens: int) -> int:
    """Return how many texts, taken in turn, have so many tokens; at least one."""
    return 1 + sum(total < tokens for total in accumulate(islice(cycle(lengths), tokens)))


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], longest: int) -> Encoded:
    encoded = encode(tokenizer, texts, longest, padding=True, return_tensors="np")
    return {name: array.astype(np.int64) for name, array in encoded.items()}
