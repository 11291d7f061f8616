"""Building a student from a teacher: free depth and widths, copied from the teacher where the shapes allow it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from edgemin_hf.families import FAMILIES, Shape, family_of, first_position, shape_of

_AUTO_CLASSES = (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
    AutoModelForMaskedLM,
    AutoModel,
)


def create_student(
    teacher: PreTrainedModel,
    num_hidden_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    *,
    layers: Sequence[int] | None = None,
    model_type: str | None = None,
) -> PreTrainedModel:
    """Builds a student with the teacher's vocabulary and head; None takes the teacher's value.

    Within a family, what has the teacher's shape is copied from it: embeddings, head, and, where all widths are the
    teacher's, the transformer layers named by `layers`. The rest is initialised at random, under PyTorch's seed.

    Args:
        teacher: The model to take after.
        num_hidden_layers: Depth.
        hidden_size: Width of the residual stream.
        num_attention_heads: Attention heads of a layer; they must divide `hidden_size`.
        intermediate_size: Width of the feed-forward network; None keeps the teacher's ratio to `hidden_size`.
        layers: The teacher's layer, counted from 1, that each student layer starts from; None spreads them evenly
            from the first to the last.
        model_type: Another family, such as "distilbert" for a BERT teacher; None keeps the teacher's.

    Returns:
        The student, in the teacher's dtype and on its device, in training mode.

    Raises:
        ValueError: If the family is unknown, or a depth or width is not possible.
    """
    config = student_config(
        teacher.config, num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, layers, model_type
    )
    source = _teacher_layers(shape_of(teacher.config), config.num_hidden_layers, layers)
    student = _auto_class(teacher).from_config(config)
    if config.model_type == teacher.config.model_type:
        _copy_weights(teacher, student, source)
    return student.to(dtype=teacher.dtype, device=teacher.device).train()


def student_config(
    teacher: PretrainedConfig,
    num_hidden_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    layers: Sequence[int] | None = None,
    model_type: str | None = None,
) -> PretrainedConfig:
    """Returns the configuration of the student that `create_student` would build; no weights are needed.

    Raises:
        ValueError: As `create_student`. The message begins with the argument's name.
    """
    limit = shape_of(teacher)
    width = limit.hidden_size if hidden_size is None else hidden_size
    ratio = limit.intermediate_size / limit.hidden_size
    shape = Shape(
        limit.num_hidden_layers if num_hidden_layers is None else num_hidden_layers,
        width,
        limit.num_attention_heads if num_attention_heads is None else num_attention_heads,
        round(ratio * width) if intermediate_size is None else intermediate_size,
    )
    for name, value in shape._asdict().items():
        if not 1 <= value <= getattr(limit, name):
            raise ValueError(f"{name}: {value}; allowed: 1 to {getattr(limit, name)}, the teacher's")
    if shape.hidden_size % shape.num_attention_heads:
        raise ValueError(
            f"num_attention_heads: {shape.num_attention_heads}; allowed: a divisor of hidden_size {shape.hidden_size}"
        )
    _teacher_layers(limit, shape.num_hidden_layers, layers)
    if model_type is None or model_type == teacher.model_type:
        config = copy.deepcopy(teacher)
        config.pruned_heads = {}
    elif model_type in FAMILIES:
        config = _other_family(teacher, model_type)
    else:
        raise ValueError(f"model_type: {model_type}; allowed: {', '.join(FAMILIES)}")
    for name, value in shape._asdict().items():
        setattr(config, family_of(config).ffn_width if name == "intermediate_size" else name, value)
    return config


def _other_family(teacher: PretrainedConfig, model_type: str) -> PretrainedConfig:
    config = AutoConfig.for_model(model_type, vocab_size=teacher.vocab_size, pad_token_id=teacher.pad_token_id)
    usable = teacher.max_position_embeddings - first_position(teacher)
    config.max_position_embeddings = usable + first_position(config)
    if hasattr(config, "type_vocab_size"):
        config.type_vocab_size = getattr(teacher, "type_vocab_size", 1)
    config.id2label, config.label2id = teacher.id2label, teacher.label2id
    config.problem_type = teacher.problem_type
    return config


def _teacher_layers(teacher: Shape, depth: int, layers: Sequence[int] | None) -> list[int]:
    """Returns the index, from 0, of the teacher's layer that each of `depth` student layers starts from."""
    last = teacher.num_hidden_layers
    if layers is None:
        return [round(i * (last - 1) / (depth - 1)) for i in range(depth)] if depth > 1 else [last - 1]
    if len(layers) != depth or not all(1 <= layer <= last for layer in layers):
        raise ValueError(f"layers: {list(layers)}; allowed: {depth} numbers from 1 to {last}, the teacher's depth")
    return [layer - 1 for layer in layers]


def _auto_class(model: PreTrainedModel) -> Any:
    for auto in _AUTO_CLASSES:
        if auto._model_mapping.get(type(model.config), None) is type(model):
            return auto
    raise ValueError(
        f"{type(model).__name__} is not supported; allowed: {', '.join(a.__name__ for a in _AUTO_CLASSES)}"
    )


@torch.no_grad()
def _copy_weights(teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int]) -> None:
    prefix = f"{family_of(teacher.config).layers}."
    same_widths = shape_of(teacher.config)[1:] == shape_of(student.config)[1:]
    weights = teacher.state_dict()
    for name, weight in student.state_dict().items():
        before, found, after = name.partition(prefix)
        if found:
            layer, rest = after.split(".", 1)
            name = f"{before}{prefix}{layers[int(layer)]}.{rest}"
        if name in weights and weights[name].shape == weight.shape and (same_widths or not found):
            weight.copy_(weights[name])
