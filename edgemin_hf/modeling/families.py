"""The encoder families: where BERT keeps what MPNet keeps elsewhere. A new family is a row of `FAMILIES`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from transformers import PretrainedConfig


@dataclass(frozen=True)
class Family:
    """Where an encoder family keeps its parts; paths are relative to one layer, if not said otherwise.

    Attributes:
        layers: Path of the list of layers in the base model.
        q: Path of the query projection; likewise `k`, `v`, `attention_output`, `ffn_in` and `ffn_out`.
        head_count: Path of the attention's own count of heads.
        head_width: Path of the attention's own width, heads times head width.
        pruned_heads: Path of the set of removed heads; None where plain `transformers` can't reload without them.
        gates: Whether the second half of `ffn_in`'s rows are the neurons' gates.
        ffn_width: Name of the configuration's field for the width of the feed-forward network.
        fused: How one matrix holds the three projections: a third each, or each head's three in turn.
        embedding_projection: Path in the base model of what widens tables narrower than the layers; the configuration's
            `embedding_size` is their width. None where tables are as wide as the layers.
        last_output: Path in the base model of what ends the last layer; None where the layer itself does.
        positions: Number of the first position, or "padding" where it stands after the padding's.
        position_table: Whether positions have vectors of their own, as many as the configuration says.
        head_rows: Paths of further modules and parameters that have a row for each dimension of each head.
        layers_differ: Whether a layer's number decides what it computes, or layers are one: then none can go.
        token_types: Whether a tokenizer's token types are its models' inputs, and those of their graphs.
        rotary: Whether queries and keys are rotated by position, each dimension with the one half a head further on.

    Example:
        >>> from edgemin_hf.modeling import FAMILIES, Family
        >>> isinstance(FAMILIES["bert"], Family), FAMILIES["bert"].q, FAMILIES["distilbert"].q
        (True, 'attention.self.query', 'attention.q_lin')
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
    gates: bool = False
    ffn_width: str = "intermediate_size"
    fused: Literal["thirds", "by head"] | None = None
    embedding_projection: str | None = None
    last_output: str | None = None
    positions: int | Literal["padding"] = 0
    position_table: bool = True
    head_rows: tuple[str, ...] = ()
    rotary: bool = False
    layers_differ: bool = False
    token_types: bool = True


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

# Their forward takes token types, but their tokenizers give none, and their graphs have no such input.
_ROBERTA = replace(_BERT, positions="padding", token_types=False)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": replace(_BERT, embedding_projection="embeddings_project"),
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
    # All layers of MPNet share one relative position bias with a column for each head (see `mpnet.py`).
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
        layers_differ=True,
        embedding_projection="encoder.embedding_hidden_mapping_in",
    ),
    "deberta": replace(
        _BERT,
        q="attention.self.in_proj",
        k="attention.self.in_proj",
        v="attention.self.in_proj",
        pruned_heads=None,
        fused="by head",
        position_table=False,
        head_rows=tuple(f"attention.self.{name}" for name in ("q_bias", "v_bias", "pos_proj", "pos_q_proj")),
    ),
    "deberta-v2": replace(
        _BERT,
        q="attention.self.query_proj",
        k="attention.self.key_proj",
        v="attention.self.value_proj",
        pruned_heads=None,
        position_table=False,
        head_rows=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
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
        gates=True,
        layers_differ=True,
        fused="thirds",
        last_output="final_norm",
        rotary=True,
        position_table=False,
    ),
}


def family_of(config: PretrainedConfig) -> Family:
    """Return the family of a model's configuration.

    Raises:
        ValueError: If the family is not known.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(f"model type {config.model_type!r} is not supported; allowed: {', '.join(FAMILIES)}")
    return FAMILIES[config.model_type]


def same_layout(one: PretrainedConfig, other: PretrainedConfig) -> bool:
    """Return whether two configurations' models have the same layers by the same names, and count positions alike."""
    ours, theirs = (replace(family_of(config), embedding_projection=None) for config in (one, other))
    return ours == theirs


class Shape(NamedTuple):
    """Depth and widths of an encoder, by the names of `transformers` configurations.

    Example:
        >>> from edgemin_hf.modeling import Shape
        >>> Shape(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536).hidden_size
        384
    """

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int


def shape_of(config: PretrainedConfig) -> Shape:
    """Return the depth and widths that a configuration asks for.

    Example:
        >>> from transformers import DistilBertConfig
        >>> from edgemin_hf.modeling import shape_of
        >>> shape_of(DistilBertConfig())
        Shape(num_hidden_layers=6, hidden_size=768, num_attention_heads=12, intermediate_size=3072)
    """
    return Shape(
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        getattr(config, family_of(config).ffn_width),
    )


def first_position(config: PretrainedConfig) -> int:
    """Return the position number of a text's first token; some families count from after their padding."""
    positions = family_of(config).positions
    return config.pad_token_id + 1 if positions == "padding" else positions
