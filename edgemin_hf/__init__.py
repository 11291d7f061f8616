"""EdgeMIN: distil, prune, quantise, export and measure BERT-class encoders with Hugging Face tools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemin_hf.data.augmentation import AugmentationConfig, augment_texts
    from edgemin_hf.distillation.distilbert import DistilBERTConfig
    from edgemin_hf.distillation.minilm import MiniLMConfig
    from edgemin_hf.distillation.minilmv2 import MiniLMv2Config, minilmv2_loss
    from edgemin_hf.distillation.mlkd import MLKDConfig, MLKDTaskConfig
    from edgemin_hf.distillation.pkd import PKDConfig
    from edgemin_hf.distillation.task import TaskDistillationConfig
    from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
    from edgemin_hf.distillation.tinybert import TinyBERTConfig
    from edgemin_hf.distillation.weighted import Weighted
    from edgemin_hf.export.onnx import export_onnx
    from edgemin_hf.modeling.loading import load_pruned
    from edgemin_hf.modeling.student import create_student, student_from_checkpoint
    from edgemin_hf.pruning.config import PruningConfig
    from edgemin_hf.pruning.vocabulary import prune_vocabulary
    from edgemin_hf.quantization.config import QuantizationConfig
    from edgemin_hf.training.trainer import DistillationTrainer

__version__ = "0.1.0"

# Imported on first use: `edgemin --help` needs no PyTorch.
_HOMES = {
    "AugmentationConfig": "data.augmentation",
    "DistilBERTConfig": "distillation.distilbert",
    "DistillationTrainer": "training.trainer",
    "MLKDConfig": "distillation.mlkd",
    "MLKDTaskConfig": "distillation.mlkd",
    "MiniLMConfig": "distillation.minilm",
    "MiniLMv2Config": "distillation.minilmv2",
    "PKDConfig": "distillation.pkd",
    "PruningConfig": "pruning.config",
    "QuantizationConfig": "quantization.config",
    "TaskDistillationConfig": "distillation.task",
    "TinyBERTConfig": "distillation.tinybert",
    "Weighted": "distillation.weighted",
    "augment_texts": "data.augmentation",
    "cached_teacher_logits": "distillation.teacher_logits",
    "create_student": "modeling.student",
    "export_onnx": "export.onnx",
    "load_pruned": "modeling.loading",
    "minilmv2_loss": "distillation.minilmv2",
    "prune_vocabulary": "pruning.vocabulary",
    "student_from_checkpoint": "modeling.student",
}

__all__ = [
    "AugmentationConfig",
    "DistilBERTConfig",
    "DistillationTrainer",
    "MLKDConfig",
    "MLKDTaskConfig",
    "MiniLMConfig",
    "MiniLMv2Config",
    "PKDConfig",
    "PruningConfig",
    "QuantizationConfig",
    "TaskDistillationConfig",
    "TinyBERTConfig",
    "Weighted",
    "augment_texts",
    "cached_teacher_logits",
    "create_student",
    "export_onnx",
    "load_pruned",
    "minilmv2_loss",
    "prune_vocabulary",
    "student_from_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
