"""What a training was, for `edgemin_config.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.distillation.known import describe_method
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.utils.edgemin_config import EDGEMIN_CONFIG, EdgeminConfig, TrainingRecord
from edgemin_hf.utils.settings import settings_of

_TRAININGS = "_edgemin_trainings"


def training_record(
    methods: Sequence[DistillationConfig], pruning: object | None, quantization: QuantizationConfig | None
) -> TrainingRecord:
    """Describe a training by its settings.

    Args:
        methods: The distillation methods.
        pruning: A `PruningConfig`, or Neural Compressor's, which `inc_config.json` tells.
        quantization: The quantisation's settings, in our words.
    """
    cut: dict[str, object] | None = None
    if pruning is not None:
        ours = isinstance(pruning, PruningConfig)
        cut = settings_of(pruning, PruningConfig) if ours else {"provider": "inc"}
    grids = None if quantization is None else settings_of(quantization, QuantizationConfig)
    return {"distillation": [describe_method(method) for method in methods], "pruning": cut, "quantization": grids}


def trainings_before(model: PreTrainedModel) -> list[TrainingRecord]:
    """Return what made a model until now: in this process, or before the folder that it was loaded from was saved."""
    known: list[TrainingRecord] | None = getattr(model, _TRAININGS, None)
    if known is not None:
        return known
    folder = Path(model.name_or_path)
    return EdgeminConfig.from_pretrained(folder).trainings if (folder / EDGEMIN_CONFIG).is_file() else []


def remember_training(model: PreTrainedModel, record: TrainingRecord) -> None:
    """Keep on a model what was done with it, for a training of the same object that comes next."""
    setattr(model, _TRAININGS, [*trainings_before(model), record])
