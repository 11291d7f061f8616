"""One view of every encoder family: where BERT keeps what MPNet keeps elsewhere.

A new family is a row of `FAMILIES`; only `attention.py`, which knows how the families score, names modules beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Literal, NamedTuple

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

Projection = Literal["q", "k", "v"]
PROJECTIONS: tuple[Projection, ...] = ("q", "k", "v")

EMBEDDINGS = -1
"""The layer number of the embeddings, whose only tensor is their output."""


class Tap(NamedTuple):
    """A tensor inside an encoder, (batch, length, width).

    Attributes:
        layer: The layer, counted from 0, or `EMBEDDINGS`.
        name: "q", "k" or "v", the output of a projection, heads concatenated; "context", what the heads give to the
            attention's output matrix, heads concatenated; "output", the hidden states behind the layer.
    """

    layer: int
    name: Literal["q", "k", "v", "context", "output"]


@dataclass(frozen=True)
class Family:
    """Where an encoder family keeps its parts; paths are relative to one layer, if not said otherwise.

    Attributes:
        layers: Path of the list of layers in the base model.
        q: Path of the query projection; likewise `k`, `v`, `attention_output`, `ffn_in` and `ffn_out`.
        head_count: Path of the attention's own count of heads.
        head_width: Path of the attention's own width, heads times head width.
        pruned_heads: Path of the set of removed heads; None where the family's forward does not survive their removal.
        neurons_prunable: Whether each layer has feed-forward neurons of its own, one row of `ffn_in` each.
        ffn_width: Name of the configuration's field for the width of the feed-forward network.
        fused: How one matrix holds the three projections: a third each, or each head's three in turn.
        embedding_outputs: Paths in the base model; the output of the last that exists goes into the first layer.
        last_output: Path in the base model of what ends the last layer; None where the layer itself does.
        positions: Number of the first position, or "padding" where it stands behind the padding's.
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
    neurons_prunable: bool = True
    ffn_width: str = "intermediate_size"
    fused: Literal["thirds", "by head"] | None = None
    embedding_outputs: tuple[str, ...] = ("embeddings",)
    last_output: str | None = None
    positions: int | Literal["padding"] = 0


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

_ROBERTA = replace(_BERT, positions="padding")

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": replace(_BERT, embedding_outputs=("embeddings", "embeddings_project")),
    "ernie": _BERT,
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
    # Its positions begin at 2 whatever its pad_token_id.
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
        positions=2,
    ),
    # Groups of layers are one module, called again and again: what is removed from one is removed from all.
    "albert": Family(
        layers="encoder.albert_layer_groups",
        q="attention.query",
        k="attention.key",
        v="attention.value",
        attention_output="attention.dense",
        ffn_in="ffn",
        ffn_out="ffn_output",
        head_count="attention.num_attention_heads",
        head_width="attention.all_head_size",
        pruned_heads=None,
        neurons_prunable=False,
        embedding_outputs=("encoder.embedding_hidden_mapping_in",),
    ),
    "deberta": replace(
        _BERT,
        q="attention.self.in_proj",
        k="attention.self.in_proj",
        v="attention.self.in_proj",
        pruned_heads=None,
        fused="by head",
    ),
    "deberta-v2": replace(
        _BERT,
        q="attention.self.query_proj",
        k="attention.self.key_proj",
        v="attention.self.value_proj",
        pruned_heads=None,
    ),
    # The rows of `mlp.Wi` are neurons and their gates.
    "modernbert": Family(
        layers="layers",
        q="attn.Wqkv",
        k="attn.Wqkv",
        v="attn.Wqkv",
        attention_output="attn.Wo",
        ffn_in="mlp.Wi",
        ffn_out="mlp.Wo",
        head_count="attn.num_heads",
        head_width="attn.all_head_size",
        pruned_heads=None,
        neurons_prunable=False,
        fused="thirds",
        last_output="final_norm",
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
    positions = family_of(config).positions
    return config.pad_token_id + 1 if positions == "padding" else positions


class Layer:
    """One transformer layer: its matrices, whatever their family calls them.

    Args:
        module: The layer's module.
        family: Its family.
        call: How often the module runs before it is this layer: above 0 where layers share it.
    """

    def __init__(self, module: nn.Module, family: Family, call: int = 0) -> None:
        self.module = module
        self.call = call
        self._family = family

    def __getattr__(self, part: str) -> nn.Linear:
        if part not in ("q", "k", "v", "attention_output", "ffn_in", "ffn_out"):
            raise AttributeError(part)
        return attrgetter(getattr(self._family, part))(self.module)

    @property
    def num_heads(self) -> int:
        """The heads that are left in this layer."""
        return attrgetter(self._family.head_count)(self.module)

    @property
    def num_neurons(self) -> int:
        """The feed-forward neurons that are left in this layer."""
        return self.ffn_out.in_features

    @property
    def attention_width(self) -> int:
        """Width of a projection: the heads that are left, times their width."""
        return self.attention_output.in_features


class Site(NamedTuple):
    """Where a tap's tensor passes by.

    Attributes:
        module: A module of the model.
        call: Which of the module's calls in a forward pass, from 0.
        side: Whether the tensor goes in or comes out.
        read: Takes the tap's tensor out of the one that passes by.
    """

    module: nn.Module
    call: int
    side: Literal["input", "output"]
    read: Callable[[Tensor], Tensor]


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
        if getattr(model.config, "inner_group_num", 1) != 1:
            raise ValueError(f"inner_group_num: {model.config.inner_group_num}; allowed: 1, a layer in each group")

    @property
    def layers(self) -> list[Layer]:
        """The layers, from the input to the output."""
        modules = attrgetter(self.family.layers)(self.base)
        if self.config.model_type != "albert":
            return [Layer(module, self.family) for module in modules]
        depth, groups = self.config.num_hidden_layers, len(modules)
        order = [layer * groups // depth for layer in range(depth)]
        inner = [modules[group].albert_layers[0] for group in order]
        return [Layer(module, self.family, order[:i].count(order[i])) for i, module in enumerate(inner)]

    @property
    def head_size(self) -> int:
        """Width of one attention head; the removal of heads does not change it."""
        return self.config.hidden_size // self.config.num_attention_heads

    def site(self, tap: Tap) -> Site:
        """Returns where the tensor `tap` passes by in a forward pass."""
        if tap.layer == EMBEDDINGS:
            return Site(self._embedding_output(), 0, "output", _as_it_is)
        layer = self.layers[tap.layer]
        if tap.name == "context":
            return Site(layer.attention_output, layer.call, "input", _as_it_is)
        if tap.name == "output":
            return Site(self._end_of(tap.layer, layer), layer.call, "output", _as_it_is)
        return Site(getattr(layer, tap.name), layer.call, "output", self._projection_reader(layer, tap.name))

    def _embedding_output(self) -> nn.Module:
        found = self.base
        for path in self.family.embedding_outputs:
            if hasattr(self.base, path.split(".")[0]):
                found = attrgetter(path)(self.base)
        return found

    def _end_of(self, index: int, layer: Layer) -> nn.Module:
        if index == self.config.num_hidden_layers - 1 and self.family.last_output is not None:
            return attrgetter(self.family.last_output)(self.base)
        if index == 0 and getattr(getattr(self.base, "encoder", None), "conv", None) is not None:
            return self.base.encoder.conv  # of large DeBERTa-v2, behind the first layer
        return layer.module

    def _projection_reader(self, layer: Layer, name: Projection) -> Callable[[Tensor], Tensor]:
        part = PROJECTIONS.index(name)
        if self.family.fused == "thirds":
            return lambda fused: fused.chunk(3, dim=-1)[part]
        if self.family.fused == "by head":
            attention = layer.module.attention.self
            bias = {"q": attention.q_bias, "v": attention.v_bias}.get(name)
            heads = layer.num_heads

            def read(fused: Tensor) -> Tensor:
                own = fused.unflatten(-1, (heads, 3, -1))[..., part, :].flatten(-2)
                return own if bias is None else own + bias

            return read
        return _as_it_is

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


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
