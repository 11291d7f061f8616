"""More texts for a task: words replaced by likely others (TinyBERT, Jiao et al. 2020, arXiv 1909.10351, Algorithm 1).

Words that are one token of a masked language model are replaced by what it predicts in their place, the others by
their neighbours among word vectors. This follows the paper; the authors' code departs from it: it also shows the model
the unmasked text, as a second segment, and leaves English stop words alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.masked_lm import WORD, predict_words
from edgemin_hf.data.word_vectors import nearest_words
from edgemin_hf.modeling.families import FAMILIES, first_position


@dataclass
class AugmentationConfig:
    """Settings of data augmentation by word replacement; the defaults are the paper's.

    Attributes:
        copies: How many copies to make of a text; those equal to it or to another copy are dropped.
        probability: Probability that a word of a copy is replaced.
        candidates: How many words a replacement is drawn from, each as likely as the others.
        model: Hub id or folder of the masked language model; None leaves the choice to the caller.
        vectors: File of word vectors, for words of several tokens; without one they stay.
        seed: Seed of the draws.

    Example:
        >>> from edgemin_hf import AugmentationConfig
        >>> AugmentationConfig(copies=5).probability
        0.4
    """

    copies: int = 20
    probability: float = 0.4
    candidates: int = 15
    model: str | None = None
    vectors: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("copies", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 1 or more")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: {self.probability}; allowed: 0 to 1")
        if self.seed < 0:
            raise ValueError(f"seed: {self.seed}; allowed: 0 or more")


class _Word(NamedTuple):
    """A word of a text: its first character, the one after its last, and its token if it is a single one."""

    start: int
    end: int
    token: int | None


def augment_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, config: AugmentationConfig
) -> list[tuple[int, str]]:
    """Make copies of texts in which words are replaced (arXiv 1909.10351, Algorithm 1).

    A word is a run of letters, apostrophes inside it included; all else stays as it is, and so do words after the
    model's maximum length. A word's candidates depend on its text alone, the draws on `config.seed` and the text's
    index. For sentence pairs, augment each column by a call of its own and keep the other text.

    Args:
        texts: The texts.
        tokenizer: The model's tokenizer, a fast one.
        model: A masked language model, on any device; set to evaluation mode.
        config: The settings; its `model` is not read.

    Returns:
        The index of a text and a new text, for each new text: at most `config.copies` for an index, in the order of
        `texts`, none equal to the text itself or to another of its index.

    Raises:
        ValueError: If the model has no masked-LM head, the tokenizer is slow or has no mask, or the word vectors can't
            be read.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
        >>> from edgemin_hf import AugmentationConfig, augment_texts
        >>> words = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "a": 3, "new": 4, "card": 5, "phone": 6}
        >>> rules = Tokenizer(models.WordLevel(words, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, model_max_length=16, **special)
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForMaskedLM(BertConfig(vocab_size=len(words), **shape))
        >>> found = augment_texts(["a new card"], tokenizer, model, AugmentationConfig(copies=3, candidates=2))
        >>> {index for index, _ in found} <= {0}
        True
    """
    _check(tokenizer, model)
    different = list(dict.fromkeys(texts))
    words = dict(zip(different, _replaceable(different, tokenizer, model, config), strict=True))
    return [
        (index, copy)
        for index, text in enumerate(texts)
        for copy in _copies(text, words[text], config, np.random.default_rng((config.seed, index)))
    ]


def _check(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    if not type(model).__name__.endswith("ForMaskedLM"):
        raise ValueError(f"model: {type(model).__name__}, which has no masked-LM head; allowed: a ...ForMaskedLM")
    check_word_tokenizer(tokenizer)


def check_word_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer tells where words are, and can mask them; ValueError where not."""
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer: {type(tokenizer).__name__}, a slow one; allowed: a fast one")
    if tokenizer.mask_token_id is None:
        raise ValueError("tokenizer: one without a mask token; allowed: the masked language model's own")


def _copies(
    text: str, words: Sequence[tuple[_Word, list[str]]], config: AugmentationConfig, random: np.random.Generator
) -> list[str]:
    """Draw the different copies of one text."""
    if not words:
        return []
    replaced = random.random((config.copies, len(words))) < config.probability
    drawn = random.integers(0, [len(candidates) for _, candidates in words], (config.copies, len(words)))
    copies: dict[str, None] = {}
    for replaces, draws in zip(replaced, drawn, strict=True):
        parts, end = [], 0
        for at in np.flatnonzero(replaces):
            word, candidates = words[at]
            parts += [text[end : word.start], candidates[draws[at]]]
            end = word.end
        copies["".join([*parts, text[end:]])] = None
    copies.pop(text, None)
    return list(copies)


def _replaceable(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, config: AugmentationConfig
) -> list[list[tuple[_Word, list[str]]]]:
    """Return, for each text, its words that have candidates, with these."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts), truncation=True, max_length=_max_length(tokenizer, model), return_offsets_mapping=True
    )
    words = [_words(text, np.array(offsets)) for text, offsets in zip(texts, encoded["offset_mapping"], strict=True)]
    masked = [(index, word.token) for index, own in enumerate(words) for word in own if word.token is not None]
    predictions = predict_words(encoded["input_ids"], masked, tokenizer, model, config.candidates)
    predicted = dict(zip(masked, predictions, strict=True))
    near: dict[str, list[str]] = {}
    if config.vectors is not None:
        pieced = {texts[i][word.start : word.end] for i, own in enumerate(words) for word in own if word.token is None}
        near = nearest_words(Path(config.vectors), sorted(pieced), config.candidates)

    def candidates(index: int, word: _Word) -> list[str]:
        if word.token is not None:
            words: list[str] = predicted[index, word.token]
            return words
        surface = texts[index][word.start : word.end]
        # Word vectors are mostly those of lower-case words.
        return [other[:1].upper() + other[1:] if surface[0].isupper() else other for other in near.get(surface, [])]

    return [[(word, found) for word in own if (found := candidates(index, word))] for index, own in enumerate(words)]


def _max_length(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    positions = getattr(model.config, "max_position_embeddings", inf)
    reserved = first_position(model.config) if model.config.model_type in FAMILIES else 0
    length: int = min(tokenizer.model_max_length, positions - reserved)
    return length


def _words(text: str, offsets: NDArray[np.int64]) -> list[_Word]:
    """Find the words of a text that its tokens reach; `offsets` are the tokens' characters, (tokens, 2)."""
    words = []
    for match in WORD.finditer(text):
        start, end = match.span()
        tokens = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
        if len(tokens):
            first, last = offsets[tokens[0], 0], offsets[tokens[-1], 1]
            single = len(tokens) == 1 and text[first:last].strip() == match.group()  # a token may bring its space
            words.append(_Word(start, end, int(tokens[0]) if single else None))
    return words
