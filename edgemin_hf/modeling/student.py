"""Building a student from a teacher: of free depth and widths, or from a published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor
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
from edgemin_hf.modeling.embedder import SENTENCE, AutoModelForSentenceEmbedding, set_width
from edgemin_hf.modeling.embedder_files import head_of, keep_sentence_files
from edgemin_hf.modeling.families import family_of, same_layout, shape_of
from edgemin_hf.modeling.initialization import INITIALIZATIONS, Initialization, initialize
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.masters import is_half
from edgemin_hf.modeling.pooling import POOLING, Pooling
from edgemin_hf.modeling.sentence_modules import keep_sentence_modules
from edgemin_hf.modeling.student_config import student_config, teacher_layers
from edgemin_hf.modeling.tokenizers import load_tokenizer

_AUTO_CLASSES: tuple[AutoClass, ...] = (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
    AutoModelForMaskedLM,
    cast(AutoClass, AutoModelForSentenceEmbedding),
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
    embedding_size: int | None = None,
    max_position_embeddings: int | None = None,
    token_counts: Tensor | None = None,
    initialization: Initialization = "slice",
    head: Pooling | Literal["auto"] = "auto",
    embedding_width: int | Literal["hidden_size"] | None = None,
    dropout: float | None = None,
) -> PreTrainedModel:
    """Build a student with the teacher's vocabulary and head; None takes the teacher's value.

    Its layers start from the teacher's that `layers` names: copied where all widths are the teacher's, else cut to its
    own widths. That needs a family with the teacher's layout (layers by the same names: RoBERTa and XLM-RoBERTa,
    BERT and ELECTRA); a student of another is random. All that is random is drawn under PyTorch's seed.

    Args:
        teacher: The model to take after.
        num_hidden_layers: Depth.
        hidden_size: Width of the residual stream.
        num_attention_heads: Attention heads of a layer; they must divide `hidden_size`.
        intermediate_size: Width of the feed-forward network; None keeps the teacher's ratio to `hidden_size`.
        layers: The teacher's layer, counted from 1, that each student layer starts from; None spreads them evenly
            from the first to the last.
        model_type: Another family, such as "distilbert" for a BERT teacher; None keeps the teacher's.
        embedding_size: Width of the embedding tables before a projection to `hidden_size`: of families that have one,
            such as "electra" for a BERT teacher. `factorize` tells how they get the teacher's.
        max_position_embeddings: Rows of the table of positions: the tokens that a text may have, and those rows that
            RoBERTa and MPNet never use.
        token_counts: How often each of the teacher's tokens occurs in the texts to come (vocabulary,): what narrower
            tables hold best. None takes all for equal.
        initialization: What becomes of the teacher's weights where widths differ; `initialize` has the formulas.
            "slice" keeps the dimensions of the residual stream with the most energy, and evenly spaced heads and
            neurons; "svd" projects the stream on its principal directions instead; "copy" takes only weights of equal
            shape, and no layers; "random" takes nothing, also where widths are equal.
        head: What its classifier reads: "cls", "mean" (of the tokens), or with "auto" what the teacher's does.
        embedding_width: Width of a sentence encoder's vectors, None the teacher's: one whose layers have another width
            gets a dense layer behind its pooling, which starts at random. "hidden_size" is that of its layers, without
            a dense layer, whatever the teacher has.
        dropout: The probability of dropout, wherever the model has it; None takes the teacher's (a new family's own).

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
        teacher.config,
        num_hidden_layers,
        hidden_size,
        num_attention_heads,
        intermediate_size,
        layers,
        model_type,
        head,
        embedding_size=embedding_size,
        max_position_embeddings=max_position_embeddings,
        embedding_width=embedding_width,
        dropout=dropout,
    )
    dtype = torch.float32 if is_half(teacher) else teacher.dtype
    student = new_model(auto_class_of(teacher), config).to(dtype=dtype, device=teacher.device)
    if same_layout(config, teacher.config):
        source = teacher_layers(shape_of(teacher.config), config.num_hidden_layers, layers)
        initialize(student, teacher, source, initialization, token_counts)
    keep_sentence_modules(student, teacher)
    return student.train()


def student_from_checkpoint(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: str | Path,
    head: Pooling | Literal["auto"] = "auto",
    embedding_width: int | Literal["hidden_size"] | None = None,
) -> PreTrainedModel:
    """Load a published model, such as a MiniLM, as a student with the teacher's kind of head and labels.

    Its encoder is taken as it is. A head that it lacks, or brings for other labels or another task, is random.

    Args:
        teacher: The model to take after.
        tokenizer: The teacher's tokenizer.
        checkpoint: Folder of the published model and its tokenizer; only safetensors are loaded.
        head: What its classifier reads: "cls", "mean" (of the tokens), or with "auto" what the checkpoint was made for.
        embedding_width: As of `create_student`.

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
    pooling: dict[str, object] = {} if head == "auto" else {POOLING: head}
    if hasattr(teacher.config, SENTENCE):
        set_width(config, teacher.config, embedding_width)
    model = load_pruned(
        checkpoint, auto_class_of(teacher), ignore_mismatched_sizes=True, **labels, **pooling, **head_of(config)
    )
    keep_sentence_modules(model, teacher)
    keep_sentence_files(model.config, teacher.config)
    return model.to(teacher.device).train()


def check_vocabulary(checkpoint: str | Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a published model has the same tokens as a teacher; ValueError where not, or without a tokenizer."""
    ours, theirs = load_tokenizer(checkpoint, config).get_vocab(), tokenizer.get_vocab()
    if ours != theirs:
        raise ValueError(
            f"checkpoint: {checkpoint}, whose vocabulary of {len(ours)} is not the teacher's; "
            f"allowed: a model with the teacher's {len(theirs)} tokens and their ids"
        )


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
