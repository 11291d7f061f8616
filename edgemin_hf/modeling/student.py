"""Building a student from a teacher: of free depth and widths, or from a published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
    PreTrainedTokenizerBase,
)

from edgemin_hf.modeling.auto_class import AutoClass, model_class, new_model
from edgemin_hf.modeling.families import FAMILIES, Shape, family_of, first_position, shape_of
from edgemin_hf.modeling.initialization import INITIALIZATIONS, Initialization, initialize
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.masters import is_half
from edgemin_hf.modeling.pooling import POOLING, Pooling, pooling_of
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.modeling.sentence_modules import keep_sentence_modules
from edgemin_hf.modeling.tokenizers import load_tokenizer

_AUTO_CLASSES: tuple[AutoClass, ...] = (
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
    initialization: Initialization = "slice",
    head: Pooling | Literal["auto"] = "auto",
) -> PreTrainedModel:
    """Build a student with the teacher's vocabulary and head; None takes the teacher's value.

    Its layers start from the teacher's that `layers` names: copied where all widths are the teacher's, else cut to its
    own widths. That needs a family with the teacher's layout (all weights by the same names, such as RoBERTa and
    XLM-RoBERTa); a student of another is random. All that is random is drawn under PyTorch's seed.

    Args:
        teacher: The model to take after.
        num_hidden_layers: Depth.
        hidden_size: Width of the residual stream.
        num_attention_heads: Attention heads of a layer; they must divide `hidden_size`.
        intermediate_size: Width of the feed-forward network; None keeps the teacher's ratio to `hidden_size`.
        layers: The teacher's layer, counted from 1, that each student layer starts from; None spreads them evenly
            from the first to the last.
        model_type: Another family, such as "distilbert" for a BERT teacher; None keeps the teacher's.
        initialization: What becomes of the teacher's weights where widths differ; `initialize` has the formulas.
            "slice" keeps the dimensions of the residual stream with the most energy, and evenly spaced heads and
            neurons; "svd" projects the stream on its principal directions instead; "copy" takes only weights of equal
            shape, and no layers; "random" takes nothing, also where widths are equal.
        head: What its classifier reads: "cls", "mean" (of the tokens), or with "auto" what the teacher's does.

    Returns:
        The student, on the teacher's device and in its dtype, but float32 where that is half, in training mode.

    Raises:
        ValueError: If the family or the initialization is unknown, or a depth or width is not possible.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf import create_student
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=50, **shape))
        >>> student = create_student(teacher, num_hidden_layers=1, hidden_size=16, num_attention_heads=2)
        >>> student.config.intermediate_size
        32
    """
    if initialization not in INITIALIZATIONS:
        raise ValueError(f"initialization: {initialization}; allowed: {', '.join(INITIALIZATIONS)}")
    config = student_config(
        teacher.config, num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, layers, model_type, head
    )
    dtype = torch.float32 if is_half(teacher) else teacher.dtype
    student = new_model(auto_class_of(teacher), config).to(dtype=dtype, device=teacher.device)
    if family_of(config) == family_of(teacher.config):
        source = _teacher_layers(shape_of(teacher.config), config.num_hidden_layers, layers)
        initialize(student, teacher, source, initialization)
    keep_sentence_modules(student, teacher)
    return student.train()


def student_from_checkpoint(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: str | Path,
    head: Pooling | Literal["auto"] = "auto",
) -> PreTrainedModel:
    """Load a published model, such as a MiniLM, as a student with the teacher's kind of head and labels.

    Its encoder is taken as it is. A head that it lacks, or brings for other labels or another task, is random.

    Args:
        teacher: The model to take after.
        tokenizer: The teacher's tokenizer.
        checkpoint: Folder of the published model and its tokenizer; only safetensors are loaded.
        head: What its classifier reads: "cls", "mean" (of the tokens), or with "auto" what the checkpoint was made for.

    Returns:
        The student, in float32 whatever the teacher's dtype, on its device, in training mode.

    Raises:
        ValueError: If the model's family is unknown, or its vocabulary is not the teacher's.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast
        >>> from edgemin_hf import student_from_checkpoint
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=3, num_labels=4, **shape))
        >>> with TemporaryDirectory() as published:
        ...     BertModel(BertConfig(vocab_size=3, **{**shape, "num_hidden_layers": 1})).save_pretrained(published)
        ...     _ = tokenizer.save_pretrained(published)
        ...     student = student_from_checkpoint(teacher, tokenizer, published)
        >>> student.config.num_hidden_layers, student.config.num_labels
        (1, 4)
    """
    config = AutoConfig.from_pretrained(checkpoint)
    family_of(config)
    check_vocabulary(checkpoint, config, tokenizer)
    if config.vocab_size != teacher.config.vocab_size:
        raise ValueError(
            f"checkpoint: {checkpoint}, whose vocabulary has {config.vocab_size} tokens; "
            f"allowed: one with the teacher's, of {teacher.config.vocab_size}"
        )
    labels = {name: getattr(teacher.config, name) for name in ("id2label", "label2id", "problem_type")}
    pooling = {} if head == "auto" else {POOLING: head}
    model = load_pruned(checkpoint, auto_class_of(teacher), ignore_mismatched_sizes=True, **labels, **pooling)
    keep_sentence_modules(model, teacher)
    return model.to(teacher.device).train()


def check_vocabulary(checkpoint: str | Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a published model has the same tokens as a teacher; ValueError where not, or without a tokenizer."""
    ours, theirs = load_tokenizer(checkpoint, config).get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        raise ValueError(
            f"checkpoint: {checkpoint}, whose vocabulary of {len(ours)} is not the teacher's; "
            f"allowed: a model with the teacher's {len(theirs)} tokens and their ids"
        )


def student_config(
    teacher: PretrainedConfig,
    num_hidden_layers: int | None = None,
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    intermediate_size: int | None = None,
    layers: Sequence[int] | None = None,
    model_type: str | None = None,
    head: Pooling | Literal["auto"] = "auto",
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
    _teacher_layers(limit, shape.num_hidden_layers, layers)
    if model_type is None or model_type == teacher.model_type:
        config = unpruned(teacher)
    elif model_type in FAMILIES:
        config = _other_family(teacher, model_type)
    else:
        raise ValueError(f"model_type: {model_type}; allowed: {', '.join(FAMILIES)}")
    for name, value in shape._asdict().items():
        setattr(config, family_of(config).ffn_width if name == "intermediate_size" else name, value)
    _follow(config, teacher)
    if head != "auto" or hasattr(teacher, POOLING):
        setattr(config, POOLING, pooling_of(teacher) if head == "auto" else head)
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
    if config.model_type == teacher.model_type and getattr(teacher, "embedding_size", None) == teacher.hidden_size:
        config.embedding_size = config.hidden_size


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
    """Return the index, from 0, of the teacher's layer that each of `depth` student layers starts from."""
    last = teacher.num_hidden_layers
    if layers is None:
        return [round(i * (last - 1) / (depth - 1)) for i in range(depth)] if depth > 1 else [last - 1]
    if len(layers) != depth or not all(1 <= layer <= last for layer in layers):
        raise ValueError(f"layers: {list(layers)}; allowed: {depth} numbers from 1 to {last}, the teacher's depth")
    return [layer - 1 for layer in layers]


def auto_class_of(model: PreTrainedModel) -> AutoClass:
    """Return the `AutoModel...` class that makes models with a model's head.

    Raises:
        ValueError: If it is none of those that a student may have.
    """
    for auto in _AUTO_CLASSES:
        if type(model.config) in auto._model_mapping and model_class(auto, model.config) is type(model):
            return auto
    raise ValueError(
        f"{type(model).__name__} is not supported; allowed: {', '.join(a.__name__ for a in _AUTO_CLASSES)}"
    )
