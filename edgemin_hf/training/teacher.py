"""The teacher of a training: loaded, where it is named and not given, and recorded for a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedModel

from edgemin_hf.data.padding import TEACHER_LOGITS
from edgemin_hf.distillation.base import DistillationConfig, Method, Objective
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.modeling.hooks import Recording, filter_forward_inputs, record
from edgemin_hf.modeling.length_groups import record_by_length
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.student import auto_class_of


def load_teacher(
    teacher: PreTrainedModel | str | Path | None, student: PreTrainedModel, methods: Iterable[DistillationConfig]
) -> PreTrainedModel | None:
    """Load a teacher that is named, in float32, with the head that the methods need, else with the student's.

    Args:
        teacher: Folder or Hub id; a model, or None, is returned as it is.
        student: The student.
        methods: What the student will learn by.

    Raises:
        ValueError: If it can't be loaded.
    """
    if not isinstance(teacher, str | Path):
        return teacher
    needs_words = any(isinstance(method, Method) and method.teacher_head == "masked_lm" for method in methods)
    auto_class = AutoModelForMaskedLM if needs_words else auto_class_of(student)
    try:
        return load_pruned(resolve_checkpoint(str(teacher)).path, auto_class, dtype=torch.float32)
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


def record_teacher(
    teacher: PreTrainedModel | None, objectives: Sequence[Objective], inputs: Mapping[str, Tensor]
) -> Recording:
    """Run a teacher on a batch, no further than the objectives read it; nothing is recorded where there is none.

    Args:
        teacher: The teacher.
        objectives: What the student is trained for.
        inputs: The batch; its `teacher_logits`, where it has some, stand instead of the teacher's.
    """
    if teacher is None:
        return Recording()
    activations = {activation for objective in objectives for activation in objective.teacher_activations}
    logits = TEACHER_LOGITS not in inputs and any(objective.needs_teacher_logits for objective in objectives)
    own = filter_forward_inputs(teacher, inputs)
    return record(teacher, activations, logits, own) if logits else record_by_length(teacher, activations, own)
