"""The distillation methods that there are: a new one is a file, and a place in `METHODS`."""

from __future__ import annotations

from collections.abc import Mapping

from edgemin_hf.distillation.base import DistillationConfig, Method
from edgemin_hf.distillation.distilbert import DistilBERTConfig
from edgemin_hf.distillation.minilm import MiniLMConfig
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.distillation.mlkd import MLKDConfig, MLKDTaskConfig
from edgemin_hf.distillation.pkd import PKDConfig
from edgemin_hf.distillation.similarities import SimilaritiesConfig
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.distillation.tinybert import TinyBERTConfig
from edgemin_hf.utils.settings import Settings, settings_of

_CONFIGS: tuple[type[Method], ...] = (
    MiniLMConfig, MiniLMv2Config, DistilBERTConfig, TinyBERTConfig, PKDConfig, MLKDConfig, MLKDTaskConfig,
    SimilaritiesConfig,
)  # fmt: skip
METHODS: dict[str, type[Method]] = {config.method: config for config in _CONFIGS}
"""The settings of each method, by its name."""
_TASK = "task"
_DESCRIBED: dict[str, type[Method] | type[TaskDistillationConfig]] = {**METHODS, _TASK: TaskDistillationConfig}


def describe_method(config: DistillationConfig) -> dict[str, object]:
    """Return a method's settings and, under "method", its name; of a class that is not ours what its `to_dict` gives.

    Args:
        config: The settings; what a class that derives from ours adds is left out.
    """
    for name, kind in _DESCRIBED.items():
        if isinstance(config, kind):
            return {"method": name, **settings_of(config, kind)}
    return {"method": type(config).__qualname__, **(config.to_dict() if isinstance(config, Settings) else {})}


def described_method(description: Mapping[str, object]) -> DistillationConfig:
    """Make the settings that `describe_method` described.

    Raises:
        ValueError: If the method or a setting is not known.
    """
    settings = dict(description)
    name = settings.pop("method", None)
    if name not in _DESCRIBED:
        raise ValueError(f"method: {name}; allowed: {', '.join(_DESCRIBED)}")
    return _DESCRIBED[str(name)].from_dict(settings)
