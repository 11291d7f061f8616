"""One vector of a text's tokens; and classifiers that read their mean, for families whose own read [CLS] alone.

Sentence encoders are trained to be read by a pooling that stands beside their weights, mostly the mean of all tokens.
Their [CLS] was never trained to say anything (docs/experiments.md has what that costs). `classifier_pooling`,
ModernBERT's own field, says in any model's configuration by which of the two its head reads; plain `transformers` heeds
it for ModernBERT alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

Pooling = Literal["cls", "mean"]
POOLING = "classifier_pooling"
"""The configuration's field."""
CLASSIFIER = "ForSequenceClassification"
"""How the names of classes with such a head end."""


def pooling_of(config: PretrainedConfig) -> Pooling:
    """Return what a model's classifier reads: [CLS], which is what a configuration means that says nothing."""
    return cast(Pooling, getattr(config, POOLING, "cls"))


def needs_our_class(config: PretrainedConfig) -> bool:
    """Return whether plain `transformers` has no classifier with the pooling of a configuration."""
    return pooling_of(config) == "mean" and not hasattr(type(config)(), POOLING)


def saved_as_our_class(config: PretrainedConfig) -> bool:
    """Return whether a saved model is of our class: one with a head for something else reads no pooling at all."""
    heads = [name for name in config.architectures or () if "For" in name]
    return needs_our_class(config) and (not heads or any(name.endswith(CLASSIFIER) for name in heads))


def mean_of_tokens(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean of a text's own tokens: hidden (batch, length, width), mask (batch, length) -> (batch, width).

    In float32 where the tokens are in half precision, whose sums would lose the last ones.
    """
    if hidden.dtype in (torch.float16, torch.bfloat16):
        hidden = hidden.float()
    if attention_mask is None:
        return hidden.mean(dim=1)
    own = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * own).sum(dim=1) / own.sum(dim=1).clamp(min=1)


def first_tokens(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Take each text's first real token, where encoders have their [CLS].

    Args:
        hidden: (batch, length, width).
        attention_mask: Which tokens are real, not 0 there, (batch, length); padding may stand on either side.

    Returns:
        (batch, width).
    """
    if attention_mask is None:
        return hidden[:, 0]
    # A sum of one, which is exact: an index would be 17 nodes more in a graph, of an output of unknown width.
    real = attention_mask != 0
    first = real & (real.long().cumsum(dim=1) == 1)  # ONNX has no cumulative sum of truths
    return (hidden * first.unsqueeze(-1)).sum(dim=1)


def largest_of_tokens(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the largest value of a text's own tokens in each dimension; shapes as `mean_of_tokens`."""
    if attention_mask is not None:
        hidden = hidden.masked_fill(attention_mask.unsqueeze(-1) == 0, torch.finfo(hidden.dtype).min)
    return hidden.max(dim=1).values


class FamilyParts(NamedTuple):
    """What models with a head of ours are made of.

    Attributes:
        parent: What all models of the family are: it knows the base model's name, and how first weights are drawn.
        encoder: The class of its encoders.
        takes: What of texts these take, by name.
        arguments: What they are told beside their configuration: to do without a pooler.
    """

    parent: type[PreTrainedModel]
    encoder: type[PreTrainedModel]
    takes: list[str]
    arguments: dict[str, bool]

    @classmethod
    def of(cls, plain: type[PreTrainedModel]) -> FamilyParts:
        """Return those of the family of a class of `transformers`' classifiers."""
        encoder: type[PreTrainedModel] = AutoModel._model_mapping[plain.config_class]
        inputs = ("input_ids", "attention_mask", "token_type_ids")
        takes = [name for name in inputs if name in _parameters(encoder.forward)]
        poolerless = {"add_pooling_layer": False} if "add_pooling_layer" in _parameters(encoder) else {}
        return cls(cast(type[PreTrainedModel], plain.__bases__[0]), encoder, takes, poolerless)

    def given(self, args: Iterable[Tensor | None], kwargs: Mapping[str, object]) -> dict[str, Tensor]:
        """Return what a forward was given of texts, by position or by name."""
        given = {name: value for name, value in zip(self.takes, args, strict=False) if value is not None}
        return given | {name: cast(Tensor, value) for name in self.takes if (value := kwargs.get(name)) is not None}

    def signature(self, *others: str) -> inspect.Signature:
        """Return what a forward is seen to take: columns of a dataset are kept, and graphs get inputs, by it."""
        kinds = {"self": inspect.Parameter.empty, **dict.fromkeys([*self.takes, *others, "return_dict"])}
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(name, kind, default=default) for name, default in kinds.items()])


@cache
def mean_pooled(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """Return the class of mean-pooled classifiers of a family: encoder, mean, dropout, one linear layer.

    Args:
        plain: The family's own class of classifiers.
    """
    parts = FamilyParts.of(plain)

    def init(self: PreTrainedModel, config: PretrainedConfig) -> None:
        parts.parent.__init__(self, config)
        self.num_labels = config.num_labels
        setattr(self, parts.parent.base_model_prefix, parts.encoder(config, **parts.arguments))
        self.dropout = nn.Dropout(_dropout_of(config))
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self: PreTrainedModel, *args: Tensor | None, labels: Tensor | None = None, **kwargs: object
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        given = parts.given(args, kwargs)
        hidden = self.base_model(**given, return_dict=True)[0]
        pooled = mean_of_tokens(hidden, given.get("attention_mask"))
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self.loss_function(labels, logits, logits, self.config)
        answer = SequenceClassifierOutput(loss=loss, logits=logits)
        return answer if kwargs.get("return_dict", True) in (True, None) else answer.to_tuple()

    forward.__signature__ = parts.signature("labels")  # type: ignore[attr-defined]
    name = plain.__name__.replace(CLASSIFIER, "MeanPooled" + CLASSIFIER)
    return type(name, (parts.parent,), {"__init__": init, "forward": forward, "__module__": __name__})


def _parameters(function: Callable[..., object]) -> Collection[str]:
    return inspect.signature(function).parameters


def _dropout_of(config: PretrainedConfig) -> float:
    """Return the dropout before the last layer, by the name that the family has for it."""
    names = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "hidden_dropout_prob")
    return float(next(value for name in names if (value := getattr(config, name, None)) is not None))
