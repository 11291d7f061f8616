"""What a tokenizer, its model and the model's graph exchange: the one place that decides it.

A checkpoint's tokenizer need not fit its model: XLM-R's beside a BERT gives no token types, BERT's beside a RoBERTa
gives some that the model has no rows for, many tell no greatest length. `fitted` makes a tokenizer give what its model
takes, and what is saved lists it; what can't be mended is refused before anything is trained.
"""

from __future__ import annotations

import copy
from os import PathLike
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.modeling.families import family_of, first_position
from edgemin_hf.runtime.graph import TOKEN_TYPES


def model_inputs(config: PretrainedConfig) -> tuple[str, ...]:
    """Return the names of the tensors that a model takes of its tokenizer.

    Token types are among them where the model tells at least two apart, and its family's graphs have them.

    Raises:
        ValueError: If the model's family is not known.

    Example:
        >>> from transformers import BertConfig, RobertaConfig
        >>> from edgemin_hf.modeling import model_inputs
        >>> model_inputs(BertConfig()), model_inputs(RobertaConfig())
        (('input_ids', 'attention_mask', 'token_type_ids'), ('input_ids', 'attention_mask'))
    """
    types = family_of(config).token_types and getattr(config, "type_vocab_size", 0) > 1
    return ("input_ids", "attention_mask", *[TOKEN_TYPES] * types)


def longest_text(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int:
    """Return how many tokens a text may have: what the tokenizer says, but no more than the model has positions."""
    most: int = min(tokenizer.model_max_length, config.max_position_embeddings - first_position(config))
    return most


def fitted(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """Return a tokenizer that gives what a model takes: the same one where it does so already, else a copy.

    Its `model_input_names` are the model's, and its greatest length at most what the model has positions for. Both are
    saved with it.

    Args:
        tokenizer: The model's tokenizer; it stays as it is.
        config: The model's configuration.

    Raises:
        ValueError: If it has tokens that the model has no rows for, or none to pad with.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import DistilBertConfig, PreTrainedTokenizerFast
        >>> from edgemin_hf.modeling import fitted
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> ours = fitted(tokenizer, DistilBertConfig(vocab_size=3, max_position_embeddings=64))
        >>> list(ours("card")), ours.model_max_length
        (['input_ids', 'attention_mask'], 64)
    """
    _check_ids(tokenizer, config)
    wanted, listed = model_inputs(config), tokenizer.model_input_names
    most, pad = longest_text(tokenizer, config), _pad_token(tokenizer, config)
    if set(wanted) == set(listed) and most == tokenizer.model_max_length and pad == tokenizer.pad_token:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = most
    if pad != tokenizer.pad_token:
        tokenizer.pad_token = pad
    # In the order that it has, since its outputs have that order too.
    names = [name for name in listed if name in wanted]
    tokenizer.model_input_names = [*names, *(name for name in wanted if name not in names)]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what `save_pretrained` writes
    return tokenizer


def load_tokenizer(folder: str | PathLike[str], config: PretrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer, fitted to its model.

    Args:
        folder: The checkpoint.
        config: The model's configuration; None reads it.

    Raises:
        ValueError: If there is none, it can't be loaded, or it does not fit the model; one line.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, PreTrainedTokenizerFast
        >>> from edgemin_hf.modeling import load_tokenizer
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> with TemporaryDirectory() as folder:
        ...     _ = tokenizer.save_pretrained(folder)
        ...     load_tokenizer(folder, BertConfig(vocab_size=3)).model_max_length
        512
    """
    config = AutoConfig.from_pretrained(folder) if config is None else config
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:  # a package that only its kind of tokenizer needs
        raise ValueError(f"{folder}: its tokenizer can't be loaded: {_first_line(error)}") from None
    except Exception as error:
        raise ValueError(
            f"{folder}: its tokenizer is missing or broken ({type(error).__name__}: {_first_line(error)}); expected: "
            "tokenizer.json, or the files of its kind"
        ) from None
    files = {*tokenizer.vocab_files_names.values(), "tokenizer.json"}
    if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in files):
        raise ValueError(f"{folder} holds no tokenizer; expected: {', '.join(sorted(files))}")
    return fitted(tokenizer, config)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"


def _check_ids(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if not vocabulary:
        raise ValueError("tokenizer: without any tokens; expected: the model's own")
    last = max(vocabulary, key=lambda token: vocabulary[token])
    if vocabulary[last] >= config.vocab_size:
        raise ValueError(
            f"tokenizer: token {last!r} has id {vocabulary[last]}; allowed: below {config.vocab_size}, the rows of the "
            "model's table"
        )


def _pad_token(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> str:
    """Return the token to pad with: the tokenizer's, or what the model's configuration names where that is one."""
    if tokenizer.pad_token is not None:
        token: str = tokenizer.pad_token
        return token
    named = None if config.pad_token_id is None else tokenizer.convert_ids_to_tokens(config.pad_token_id)
    if named is None or "pad" not in named.casefold():
        raise ValueError("tokenizer: has no pad_token; expected: one, set as tokenizer.pad_token and saved with it")
    return str(named)
