"""The teacher of a training, where it is named and not given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel

from edgemin_hf.distillation.base import DistillationConfig, Method, Objective
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.student import auto_class_of


def load_teacher(name: str | Path, student: PreTrainedModel, methods: Iterable[DistillationConfig]) -> PreTrainedModel:
    """Load a teacher, in float32, with the head that the methods need, else with the student's.

    Args:
        name: Folder or Hub id.
        student: The student.
        methods: What the student will learn by.

    Raises:
        ValueError: If it can't be loaded.
    """
    needs_words = any(isinstance(method, Method) and method.teacher_head == "masked_lm" for method in methods)
    auto_class = AutoModelForMaskedLM if needs_words else auto_class_of(student)
    try:
        return load_pruned(resolve_checkpoint(str(name)).path, auto_class, dtype=torch.float32)
    except (ValueError, OSError) as error:
        raise ValueError(f"teacher_model: {' '.join(str(error).split())}") from error


def check_head(teacher: PreTrainedModel, objectives: Iterable[Objective]) -> None:
    """Check that a teacher that was loaded brought the head that its logits come from.

    Raises:
        ValueError: If its head is random, and an objective reads its logits.
    """
    saved, loaded = (teacher.config.architectures or ["a model"])[0], type(teacher).__name__
    if saved != loaded and any(objective.needs_teacher_logits for objective in objectives):
        raise ValueError(f"teacher_model: {teacher.name_or_path} holds a {saved}; expected a {loaded}, with its head")
