"""Sentence encoders: an encoder, a pooling of its tokens, a dense layer where one is asked for, and a norm.

They give one vector a text, as sentence-transformers does by the modules beside an encoder's weights, in one model that
is trained, pruned, quantised and exported like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from edgemin_hf.modeling.pooling import CLASSIFIER, FamilyParts, first_tokens, largest_of_tokens, mean_of_tokens

SENTENCE = "sentence_embedding"
"""The configuration's field, and the name of the vectors among a model's outputs."""
EMBEDDER = "ForSentenceEmbedding"
"""How the names of classes with such a head end."""

SentencePooling = Literal["mean", "cls", "max"]
DenseActivation = Literal["identity", "tanh"]
POOLINGS = {"mean": mean_of_tokens, "cls": first_tokens, "max": largest_of_tokens}
"""What makes one vector of a text's tokens, by its name in sentence-transformers."""


class SentenceHead(NamedTuple):
    """How an encoder's tokens become one vector.

    Attributes:
        pooling: The mean of the tokens, [CLS], or the largest values.
        dense: Outputs of the linear layer behind it; None where there is none.
        activation: What follows that layer.
        normalized: Whether vectors have length 1.
        dimensions: Widths of the prefixes that stand alone, from the largest (Matryoshka, arXiv 2205.13147).

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.modeling.embedder import SentenceHead
        >>> config = BertConfig(sentence_embedding={"pooling": "cls"})
        >>> SentenceHead.of(config), SentenceHead.of(config).width(config)
        (SentenceHead(pooling='cls', dense=None, activation='identity', normalized=True, dimensions=()), 768)
    """

    pooling: SentencePooling = "mean"
    dense: int | None = None
    activation: DenseActivation = "identity"
    normalized: bool = True
    dimensions: Sequence[int] = ()

    @classmethod
    def of(cls, config: PretrainedConfig) -> SentenceHead:
        """Return what a configuration says; ValueError where that is not possible."""
        try:
            head = cls(**getattr(config, SENTENCE, {}))
        except TypeError:
            raise ValueError(
                f"{SENTENCE} of its configuration: {getattr(config, SENTENCE)}; allowed: {', '.join(cls._fields)}"
            ) from None
        for name, value, allowed in (
            ("pooling", head.pooling, get_args(SentencePooling)),
            ("activation", head.activation, get_args(DenseActivation)),
        ):
            if value not in allowed:
                raise ValueError(f"{SENTENCE}.{name} of its configuration: {value}; allowed: {', '.join(allowed)}")
        width = head.width(config)
        if odd := [one for one in head.dimensions if not 1 <= one <= width]:
            raise ValueError(f"dimensions: {odd[0]}; allowed: 1 to {width}, the vectors' width")
        return head._replace(dimensions=tuple(head.dimensions))

    def width(self, config: PretrainedConfig) -> int:
        """Return the width of the vectors."""
        return int(self.dense or config.hidden_size)

    def widths(self, config: PretrainedConfig) -> list[int]:
        """Return the widths that vectors may be cut to, from their whole width."""
        return sorted({self.width(config), *self.dimensions}, reverse=True)


def set_width(
    config: PretrainedConfig, teacher: PretrainedConfig, width: int | Literal["hidden_size"] | None = None
) -> None:
    """Give a student's configuration the teacher's head, with the dense layer that a width asks for.

    Args:
        config: The student's, whose hidden size stands.
        teacher: The teacher's.
        width: Width of the student's vectors, without a dense layer that of its layers; None is the teacher's.
    """
    head = SentenceHead.of(teacher)
    if width == "hidden_size":
        setattr(config, SENTENCE, head._replace(dense=None, activation="identity", dimensions=())._asdict())
        return
    width = head.width(teacher) if width is None else width
    # What follows a teacher's own layer bounds its vectors, and so has no place where another map is learned.
    activation = head.activation if width == head.dense else "identity"
    dense = None if width == config.hidden_size and head.dense is None else width
    setattr(config, SENTENCE, head._replace(dense=dense, activation=activation, dimensions=())._asdict())


@dataclass
class SentenceEmbeddingOutput(ModelOutput):
    """What a sentence encoder answers.

    Attributes:
        sentence_embedding: The vectors (batch, width).
        last_hidden_state: The tokens that they are made of (batch, length, hidden size).
    """

    sentence_embedding: Tensor | None = None
    last_hidden_state: Tensor | None = None


@cache
def sentence_embedder(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return the class of a family's sentence encoders.

    Args:
        plain: The family's class of classifiers in `transformers`.
    """
    parts = FamilyParts.of(plain)

    def init(self: PreTrainedModel, config: PretrainedConfig) -> None:
        parts.parent.__init__(self, config)
        head = SentenceHead.of(config)
        setattr(self, parts.parent.base_model_prefix, parts.encoder(config, **parts.arguments))
        if head.dense is not None:
            self.projection = nn.Linear(config.hidden_size, head.dense)
        self.post_init()

    def forward(
        self: PreTrainedModel, *args: Tensor | None, **kwargs: object
    ) -> SentenceEmbeddingOutput | tuple[Tensor, ...]:
        given, head = parts.given(args, kwargs), SentenceHead.of(self.config)
        hidden = self.base_model(**given, return_dict=True)[0]
        vectors = POOLINGS[head.pooling](hidden, given.get("attention_mask"))
        if head.dense is not None:
            vectors = self.projection(vectors)
            vectors = torch.tanh(vectors) if head.activation == "tanh" else vectors
        if head.normalized:
            vectors = nn.functional.normalize(vectors, dim=-1)
        answer = SentenceEmbeddingOutput(vectors, hidden)
        return answer if kwargs.get("return_dict", True) in (True, None) else answer.to_tuple()

    # A Trainer measures where rows have labels, which these only seem to take: none are learned.
    forward.__signature__ = parts.signature("labels")  # type: ignore[attr-defined]
    name = plain.__name__.replace(CLASSIFIER, EMBEDDER)
    return type(name, (parts.parent,), {"__init__": init, "forward": forward, "__module__": __name__})


class _Embedders(Mapping[type[PretrainedConfig], type[PreTrainedModel]]):
    """The class of each configuration's sentence encoders, made when it is asked for."""

    def __getitem__(self, config: type[PretrainedConfig]) -> type[PreTrainedModel]:
        plain: type[PreTrainedModel] = AutoModelForSequenceClassification._model_mapping[config]
        return sentence_embedder(plain)  # type: ignore[arg-type] # as of `mean_pooled`

    def __iter__(self) -> Iterator[type[PretrainedConfig]]:
        return iter(cast(Mapping[type[PretrainedConfig], object], AutoModelForSequenceClassification._model_mapping))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class AutoModelForSentenceEmbedding:
    """Stand where an `AutoModel...` class of `transformers` does: the class of a configuration's sentence encoders.

    Example:
        >>> from transformers import BertConfig
        >>> from edgemin_hf.modeling import AutoModelForSentenceEmbedding, model_class
        >>> model_class(AutoModelForSentenceEmbedding, BertConfig()).__name__
        'BertForSentenceEmbedding'
    """

    _model_mapping: ClassVar[Mapping[type[PretrainedConfig], type[PreTrainedModel]]] = _Embedders()
