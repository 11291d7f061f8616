"""What differs between `transformers` 4.57 and 5, asked of the library itself rather than of its version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from math import inf
from operator import attrgetter
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainingArguments
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

RELEASE = 4 if hasattr(PreTrainedModel, "prune_heads") else 5
"""The major release: 5 can't cut a model to its configuration's `pruned_heads` any more."""

_ARGUMENTS = {field.name for field in fields(TrainingArguments)}
_GROUPED = (
    {"group_by_length": True} if "group_by_length" in _ARGUMENTS else {"train_sampling_strategy": "group_by_length"}
)


def group_by_length() -> dict[str, object]:
    """Return the arguments of `TrainingArguments` that ask for batches of like length.

    Example:
        >>> from edgemin_hf.utils.compat import group_by_length, groups_by_length
        >>> from transformers import TrainingArguments
        >>> groups_by_length(TrainingArguments("out", use_cpu=True, **group_by_length()))
        True
    """
    return dict(_GROUPED)


def groups_by_length(arguments: TrainingArguments) -> bool:
    """Return whether a training asks for batches of like length."""
    return all(getattr(arguments, name) == value for name, value in _GROUPED.items())


def training_arguments(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings by the names of 4.57's `TrainingArguments` as arguments of the installed one's.

    `warmup_ratio` is gone in 5, where a `warmup_steps` below 1 is a share of all steps. As before, steps win over it.
    """
    arguments = dict(settings)
    if "warmup_ratio" in arguments and "warmup_ratio" not in _ARGUMENTS:
        ratio = arguments.pop("warmup_ratio")
        # 1 would be a single step.
        arguments["warmup_steps"] = arguments.get("warmup_steps") or min(float(str(ratio)), 1 - 1e-9)
    return arguments


def tensorboard_folder(folder: Path) -> dict[str, object]:
    """Return the arguments of `TrainingArguments` that have TensorBoard's files written to a folder.

    5 has none, but a variable of the environment, which is then set.
    """
    if "logging_dir" in _ARGUMENTS:
        return {"logging_dir": str(folder)}
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    return {}


class PortableTokenizer(PreTrainedTokenizerFast):
    """A tokenizer that is what its `tokenizer.json` says, saved by the name that 4.57 and 5 both know its class by.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from edgemin_hf.utils.compat import PortableTokenizer
        >>> PortableTokenizer(tokenizer_object=Tokenizer(models.WordLevel({"card": 0}))).tokenize("card")
        ['card']
    """


# What is saved as its class; 4.57 does not know the name that 5 has for it.
PortableTokenizer.__name__ = "PreTrainedTokenizerFast"


def special_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """Return a tokenizer's special tokens as arguments of its class."""
    if hasattr(tokenizer, "special_tokens_map_extended"):
        return dict(tokenizer.special_tokens_map_extended)
    return {**tokenizer._special_tokens_map, "extra_special_tokens": list(tokenizer._extra_special_tokens)}


def head_count(layer: nn.Module, path: str, width: int) -> int:
    """Return the heads of a layer.

    Args:
        layer: The layer.
        path: Where its attention counts them; ModernBERT's does so until 4.57.
        width: The width of all of them.
    """
    try:
        heads: int = attrgetter(path)(layer)
    except AttributeError:
        heads = width // layer.attn.head_dim
    return heads


def sliding_window(attention: nn.Module) -> float:
    """Return how many tokens to either side a ModernBERT's attention sees; infinity where it sees all."""
    if hasattr(attention, "local_attention"):
        left: int = attention.local_attention[0]
        return inf if left < 0 else left
    return inf if attention.sliding_window is None else attention.sliding_window - 1


def rotated(base: PreTrainedModel, layer: nn.Module, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys (batch, heads, length, head width) by position, as a layer of ModernBERT does.

    Args:
        base: The encoder.
        layer: Its layer, which until 4.57 has the rotation itself.
        q: Queries.
        k: Keys.
    """
    positions = torch.arange(q.shape[2], device=q.device)[None]
    own = getattr(layer.attn, "rotary_emb", None)
    cos, sin = base.rotary_emb(q, positions, layer.attention_type) if own is None else own(q, position_ids=positions)
    turned: tuple[Tensor, Tensor] = apply_rotary_pos_emb(q, k, cos, sin)
    return turned
