"""The configuration of a checkpoint, before any weights are there.

Apart from `checkpoints.py`, which finds and downloads without importing transformers.
"""

from __future__ import annotations

from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.hub.checkpoints import Checkpoint, resolve_checkpoint
from edgemin_hf.modeling.families import family_of
from edgemin_hf.modeling.tokenizers import load_tokenizer


def load_config(model: str, found: Checkpoint | None = None) -> PretrainedConfig:
    """Load the configuration of a model, folder or Hub id, that has a tokenizer beside it; load no weights.

    Args:
        model: The model.
        found: Where it is, if that is known already.

    Raises:
        ValueError: As `load_config_and_tokenizer`.
    """
    return load_config_and_tokenizer(model, found)[0]


def load_config_and_tokenizer(
    model: str, found: Checkpoint | None = None
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Load the configuration of a model, folder or Hub id, and its tokenizer, fitted to it; load no weights.

    Raises:
        ValueError: If one of the two can't be loaded, they do not fit, or the model's family is not known.
    """
    found = found or resolve_checkpoint(model, weights=False)
    try:
        config = AutoConfig.from_pretrained(found.path)
    except (OSError, TypeError, KeyError, ValueError) as error:  # broken JSON, an unknown model type, a pointer
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{model}: its configuration can't be loaded ({reason})") from None
    family_of(config)
    if (quantized := getattr(config, "quantization_config", None)) is not None:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else type(quantized).__name__
        raise ValueError(f"{model}: quantization_config of {method}; expected: a checkpoint that is not quantised")
    return config, load_tokenizer(found.path, config)
