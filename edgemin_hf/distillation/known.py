"""The distillation methods that there are: a new one is a file, and a place in `METHODS`."""

from __future__ import annotations

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.distilbert import DistilBERTConfig
from edgemin_hf.distillation.minilm import MiniLMConfig
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.distillation.mlkd import MLKDConfig, MLKDTaskConfig
from edgemin_hf.distillation.pkd import PKDConfig
from edgemin_hf.distillation.tinybert import TinyBERTConfig

_CONFIGS: tuple[type[Method], ...] = (
    MiniLMConfig, MiniLMv2Config, DistilBERTConfig, TinyBERTConfig, PKDConfig, MLKDConfig, MLKDTaskConfig,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {config.method: config for config in _CONFIGS}
"""The settings of each method, by its name."""
