"""What a masked language model predicts instead of single tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutput

from edgemin_hf.modeling.hooks import Inputs, hooked
from edgemin_hf.modeling.loading import load_reporting

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
"""A run of letters, apostrophes inside it included."""

# How byte-level BPE and SentencePiece mark a token that brings its space along.
_SPACE_MARKS = ("Ġ", "▁")
# Of a batch: much to do at once, while the logits of 256 rows and 250,000 words still fit in memory.
_BATCH_TOKENS = 2**13
_BATCH_ROWS = 256


def load_masked_lm(folder: str | Path) -> PreTrainedModel:
    """Load a masked language model from safetensors, in float32.

    Args:
        folder: A checkpoint on this machine.

    Raises:
        ValueError: If its family has no masked-LM head, or the checkpoint lacks the head's weights.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForMaskedLM
        >>> from edgemin_hf.data import load_masked_lm
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> with TemporaryDirectory() as folder:
        ...     BertForMaskedLM(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
        ...     load_masked_lm(folder).cls.predictions.decoder.out_features
        50
    """
    config = AutoConfig.from_pretrained(folder)
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(f"model: {folder}, a {config.model_type}; allowed: a masked language model")
    model, new = load_reporting(folder, AutoModelForMaskedLM)
    if new:
        allowed = "a checkpoint with a masked-LM head, as pre-training leaves it"
        raise ValueError(f"model: {folder}, which lacks {new[0]}; allowed: {allowed}")
    return model


@torch.inference_mode()
def predict_words(
    input_ids: Sequence[Sequence[int]],
    masked: Sequence[tuple[int, int]],
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    count: int,
) -> list[list[str]]:
    """Predict words for masked tokens, those of many texts in a batch.

    Only tokens that are a whole word can be predicted: no punctuation, no numbers, no pieces, no special tokens.

    Args:
        input_ids: The tokens of each text, special ones included.
        masked: Text and place of the tokens to mask; each is masked alone.
        tokenizer: The model's tokenizer.
        model: A masked language model, on any device; set to evaluation mode.
        count: How many words to predict.

    Returns:
        The most likely words for each masked token, the likeliest first; fewer where the vocabulary has fewer.
    """
    model.eval()
    names, is_word, spaced = _vocabulary(tokenizer, model)
    predictions: list[list[str]] = [[]] * len(masked)
    for part in tqdm(_batches([len(input_ids[text]) for text, _ in masked]), desc="Masked words", unit="batch"):
        rows = [torch.tensor(input_ids[masked[index][0]]) for index in part]
        ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
        real = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
        places = torch.arange(len(part)), torch.tensor([masked[index][1] for index in part])
        # A token that brings its space along is replaced by one that does so too.
        allowed = is_word & (spaced == spaced[ids[places]][:, None])
        ids[places] = tokenizer.mask_token_id
        inputs = {"input_ids": ids.to(model.device), "attention_mask": real.long().to(model.device)}
        logits = _logits_at(model, inputs, places).masked_fill(~allowed.to(model.device), -inf)
        best = logits.topk(min(count, logits.shape[1]))
        for index, tokens, values in zip(part, best.indices.tolist(), best.values.tolist(), strict=True):
            predictions[index] = [names[token] for token, value in zip(tokens, values, strict=True) if value > -inf]
    return predictions


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Put rows of like length together, the longest first; return the indices of each batch."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches, start = [], 0
    while start < len(order):
        size = max(1, min(_BATCH_ROWS, _BATCH_TOKENS // lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches


def _vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> tuple[list[str], Tensor, Tensor]:
    """Return for each token of the model its text, whether it is a word, and whether it brings a space along."""
    size = model.config.vocab_size
    tokens = [token or "" for token in tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))]
    tokens += [""] * (size - len(tokens))  # the model's table may be longer
    names = [tokenizer.convert_tokens_to_string([token]).strip() for token in tokens]
    special = set(tokenizer.all_special_tokens)
    is_word = [bool(WORD.fullmatch(name)) and token not in special for token, name in zip(tokens, names, strict=True)]
    return names, torch.tensor(is_word), torch.tensor([token.startswith(_SPACE_MARKS) for token in tokens])


def _logits_at(model: PreTrainedModel, inputs: Mapping[str, Tensor], places: tuple[Tensor, Tensor]) -> Tensor:
    """Return the logits at one place of each row, (rows, vocabulary).

    The head computes these places alone: with a large vocabulary it costs more than the encoder.
    """

    def keep(_module: nn.Module, _args: Inputs, output: BaseModelOutput) -> None:
        if output.last_hidden_state.ndim == 3:  # else without padding; the model puts it back after its head
            output.last_hidden_state = output.last_hidden_state[places][:, None]

    with hooked(after=[(model.base_model, keep)]):
        logits = model(**inputs, return_dict=True).logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[places]
