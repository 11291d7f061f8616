"""The configuration of a checkpoint, before any weights are there.

Apart from `checkpoints.py`, which finds and downloads without importing transformers.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from edgemin_hf.hub.checkpoints import Checkpoint, resolve_checkpoint
from edgemin_hf.modeling.families import family_of


def load_config(model: str, found: Checkpoint | None = None) -> PretrainedConfig:
    """Load the configuration of a model, folder or Hub id, that has a tokenizer beside it; load no weights.

    Args:
        model: The model.
        found: Where it is, if that is known already.

    Raises:
        ValueError: If one of the two can't be loaded, or the model's family is not known.
    """
    found = found or resolve_checkpoint(model, weights=False)
    try:
        config = AutoConfig.from_pretrained(found.path)
        AutoTokenizer.from_pretrained(found.path)
    except (OSError, TypeError, KeyError) as error:
        raise ValueError(f"{model}: its configuration or tokenizer can't be loaded ({error})") from None
    family_of(config)
    return config
