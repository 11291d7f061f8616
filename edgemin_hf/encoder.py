"""One view of every encoder family: the only file that knows how BERT differs from MPNet.

A new family is a row of `FAMILIES`; nothing else in the package names a model's modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

Projection = Literal["q", "k", "v"]
PROJECTIONS: tuple[Projection, ...] = ("q", "k", "v")


class Tap(NamedTuple):
    """A tensor inside an encoder: the output of a projection (batch, length, width) of one layer, counted from 0."""

    layer: int
    name: Projection


@dataclass(frozen=True)
class Family:
    """Where an encoder family keeps its parts; every path but `layers` is relative to one layer.

    Attributes:
        layers: Path of the list of layers, from the base model.
        q: Path of the query projection; likewise `k`, `v`, `attention_output`, `ffn_in` and `ffn_out`.
        head_count: Path of the attention's own count of heads.
        head_width: Path of the attention's own width, heads times head width.
        pruned_heads: Path of the set of removed heads; None where the family's forward does not survive their removal.
        ffn_width: Name of the configuration's field for the width of the feed-forward network.
    """

    layers: str
    q: str
    k: str
    v: str
    attention_output: str
    ffn_in: str
    ffn_out: str
    head_count: str
    head_width: str
    pruned_heads: str | None
    ffn_width: str = "intermediate_size"


_BERT = Family(
    layers="encoder.layer",
    q="attention.self.query",
    k="attention.self.key",
    v="attention.self.value",
    attention_output="attention.output.dense",
    ffn_in="intermediate.dense",
    ffn_out="output.dense",
    head_count="attention.self.num_attention_heads",
    head_width="attention.self.all_head_size",
    pruned_heads="attention.pruned_heads",
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "distilbert": Family(
        layers="transformer.layer",
        q="attention.q_lin",
        k="attention.k_lin",
        v="attention.v_lin",
        attention_output="attention.out_lin",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        head_count="attention.n_heads",
        head_width="attention.dim",
        pruned_heads="attention.pruned_heads",
        ffn_width="hidden_dim",
    ),
    # All layers of MPNet share one relative position bias with a column for each head, which no layer can lose alone.
    "mpnet": Family(
        layers="encoder.layer",
        q="attention.attn.q",
        k="attention.attn.k",
        v="attention.attn.v",
        attention_output="attention.attn.o",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
        head_count="attention.attn.num_attention_heads",
        head_width="attention.attn.all_head_size",
        pruned_heads=None,
    ),
}


def family_of(config: PretrainedConfig) -> Family:
    """Returns the family of a model's configuration.

    Raises:
        ValueError: If the family is not known.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"model type {config.model_type!r} is not supported; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]


class Shape(NamedTuple):
    """Depth and widths of an encoder, by the names of `transformers` configurations."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int


def shape_of(config: PretrainedConfig) -> Shape:
    """Returns the depth and widths that a configuration asks for."""
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        getattr(config, family_of(config).ffn_width),
    )


def first_position(config: PretrainedConfig) -> int:
    """Returns the position number of a text's first token; some families count from behind their padding."""
    if config.model_type == "mpnet":
        return 2  # whatever its pad_token_id
    return config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta") else 0


class Layer:
    """One transformer layer: its six matrices, whatever their family calls them."""

    def __init__(self, module: nn.Module, family: Family) -> None:
        self.module = module
        self._family = family

    def __getattr__(self, part: str) -> nn.Linear:
        if part not in ("q", "k", "v", "attention_output", "ffn_in", "ffn_out"):
            raise AttributeError(part)
        return attrgetter(getattr(self._family, part))(self.module)

    @property
    def num_heads(self) -> int:
        """The heads that are left in this layer."""
        return attrgetter(self._family.head_count)(self.module)


class Encoder:
    """A view of a `transformers` encoder, with or without a head; the model itself stays as it is.

    Args:
        model: A model of one of `FAMILIES`.

    Raises:
        ValueError: If the model's family is not known.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config
        self.family = family_of(model.config)
        self.base: PreTrainedModel = model.base_model

    @property
    def layers(self) -> list[Layer]:
        """The layers, from the input to the output."""
        return [Layer(module, self.family) for module in attrgetter(self.family.layers)(self.base)]

    @property
    def head_size(self) -> int:
        """Width of one attention head; the removal of heads does not change it."""
        return self.config.hidden_size // self.config.num_attention_heads

    def module(self, tap: Tap) -> nn.Module:
        """Returns the module whose output is the tensor `tap`."""
        return getattr(self.layers[tap.layer], tap.name)

    def embeddings(self) -> Iterator[tuple[nn.Module, str, nn.Embedding]]:
        """Yields each embedding table with its parent and its name there: words, positions, token types."""
        parent = self.base.embeddings
        for name, child in parent.named_children():
            if isinstance(child, nn.Embedding):
                yield parent, name, child

    def linears(self) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
        """Yields each linear layer, those of the head included, with its parent and its name there."""
        for parent in self.model.modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    yield parent, name, child
