"""The configuration of a student: a teacher's, with a shape, a family, tables and positions of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from transformers import AutoConfig, PretrainedConfig

from edgemin_hf.modeling.cross_encoder import ACTIVATION
from edgemin_hf.modeling.embedder import SENTENCE, set_width
from edgemin_hf.modeling.families import FAMILIES, Shape, family_of, first_position, same_layout, shape_of
from edgemin_hf.modeling.pooling import POOLING, Pooling, pooling_of
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.modeling.sentence_modules import SENTENCE_FILES

_LEAST_EMBEDDING = 2
"""Of one number nothing would be left by LayerNorm."""


def student_config(
    teacher: PretrainedConfig,
    num_hidden_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    layers: Sequence[int] | None = None,
    model_type: str | None = None,
    head: Pooling | Literal["auto"] = "auto",
    *,
    embedding_size: int | None = None,
    max_position_embeddings: int | None = None,
    embedding_width: int | Literal["hidden_size"] | None = None,
    dropout: float | None = None,
) -> PretrainedConfig:
    """Return the configuration of the student that `create_student` would build; no weights are needed.

    Raises:
        ValueError: As `create_student`. The message begins with the argument's name.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.modeling import student_config
        >>> config = student_config(BertConfig(), num_hidden_layers=6, hidden_size=384)
        >>> config.num_attention_heads, config.intermediate_size
        (12, 1536)
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
    teacher_layers(limit, shape.num_hidden_layers, layers)
    if model_type is None or model_type == teacher.model_type:
        config = unpruned(teacher)
    elif model_type in FAMILIES:
        config = _other_family(teacher, model_type)
    else:
        raise ValueError(f"model_type: {model_type}; allowed: {', '.join(FAMILIES)}")
    for name, value in shape._asdict().items():
        setattr(config, family_of(config).ffn_width if name == "intermediate_size" else name, value)
    _follow(config, teacher)
    _set_embedding_size(config, teacher, embedding_size)
    if max_position_embeddings is not None:
        _set_positions(config, teacher, max_position_embeddings)
    if head != "auto" or hasattr(teacher, POOLING):
        setattr(config, POOLING, pooling_of(teacher) if head == "auto" else head)
    for name in (SENTENCE, SENTENCE_FILES, ACTIVATION):  # which another family's configuration has not yet
        if hasattr(teacher, name):
            setattr(config, name, getattr(teacher, name))
    if embedding_width is not None or hasattr(config, SENTENCE):
        set_width(config, teacher, embedding_width)
    if dropout is not None:
        _set_dropout(config, dropout)
    config.name_or_path = ""  # it was loaded from nowhere: not what its teacher was made by made it
    return config


def _follow(config: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Set what some families' configurations say of their widths a second time."""
    head_size = config.hidden_size // config.num_attention_heads
    if family_of(config).rotary and head_size % 2:
        raise ValueError(
            f"num_attention_heads: {config.num_attention_heads} of {head_size}; allowed for {config.model_type}: "
            "heads of even size"
        )
    if getattr(config, "layer_types", None):  # ModernBERT's, which since transformers 5 tell each layer's reach
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    if hasattr(config, "pooler_hidden_size"):
        config.pooler_hidden_size = config.hidden_size
    if hasattr(config, "attention_head_size"):
        config.attention_head_size = head_size


def _set_embedding_size(config: PretrainedConfig, teacher: PretrainedConfig, size: int | None) -> None:
    """Set the width of the embedding tables: the teacher's, or a smaller one where the family can have it."""
    most = getattr(teacher, "embedding_size", teacher.hidden_size)
    if family_of(config).embedding_projection is None:
        if size is not None:
            able = [name for name, family in FAMILIES.items() if family.embedding_projection is not None]
            raise ValueError(
                f"embedding_size: {size} for {config.model_type}, whose tables are as wide as its layers; allowed: "
                f"model_type {' or '.join(able)}"
            )
        # DeBERTa's, which need not be there.
        if config.model_type == teacher.model_type and getattr(teacher, "embedding_size", None) == teacher.hidden_size:
            config.embedding_size = config.hidden_size
        return
    if size is not None and not _LEAST_EMBEDDING <= size <= most:
        raise ValueError(f"embedding_size: {size}; allowed: {_LEAST_EMBEDDING} to {most}, the teacher's")
    config.embedding_size = size or (config.hidden_size if most == teacher.hidden_size else most)


def _set_positions(config: PretrainedConfig, teacher: PretrainedConfig, positions: int) -> None:
    """Shorten the table of positions."""
    if not family_of(config).position_table:
        raise ValueError(
            f"max_position_embeddings: {positions} for {config.model_type}, which has no table of them; allowed: none"
        )
    # A text has two special tokens at least.
    first = first_position(config)
    most = teacher.max_position_embeddings - first_position(teacher) + first
    if not first + 3 <= positions <= most:
        raise ValueError(f"max_position_embeddings: {positions}; allowed: {first + 3} to {most}, the teacher's")
    config.max_position_embeddings = positions


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    """Set all of a configuration's probabilities of dropout, whatever its family calls them."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: {dropout:g}; allowed: from 0 to below 1")
    for name, value in config.to_dict().items():
        if "dropout" in name and isinstance(value, float | int):
            setattr(config, name, dropout)


def _other_family(teacher: PretrainedConfig, model_type: str) -> PretrainedConfig:
    config = AutoConfig.for_model(model_type, vocab_size=teacher.vocab_size, pad_token_id=teacher.pad_token_id)
    usable = teacher.max_position_embeddings - first_position(teacher)
    config.max_position_embeddings = usable + first_position(config)
    if hasattr(config, "type_vocab_size"):
        config.type_vocab_size = getattr(teacher, "type_vocab_size", 1)
    config.id2label, config.label2id = teacher.id2label, teacher.label2id
    config.problem_type = teacher.problem_type
    if same_layout(config, teacher):  # it gets the teacher's weights, and computes alike
        config.hidden_act, config.layer_norm_eps = teacher.hidden_act, teacher.layer_norm_eps
    return config


def teacher_layers(teacher: Shape, depth: int, layers: Sequence[int] | None) -> list[int]:
    """Return the index, from 0, of the teacher's layer that each of `depth` student layers starts from."""
    last = teacher.num_hidden_layers
    if layers is None:
        return [round(i * (last - 1) / (depth - 1)) for i in range(depth)] if depth > 1 else [last - 1]
    if len(layers) != depth or not all(1 <= layer <= last for layer in layers):
        raise ValueError(f"layers: {list(layers)}; allowed: {depth} numbers from 1 to {last}, the teacher's depth")
    return [layer - 1 for layer in layers]
