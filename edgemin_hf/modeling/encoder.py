"""One view of every encoder: where its tensors pass by, whatever its family calls its modules.

Only this file, `families.py` and `attention.py` know how families differ; `mpnet.py` and `surgery.py` know of MPNet's
position bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Literal, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.families import Family, family_of
from edgemin_hf.utils.compat import head_count

Projection = Literal["q", "k", "v"]
PROJECTIONS: tuple[Projection, ...] = ("q", "k", "v")

EMBEDDINGS = -1
"""The layer number of the embeddings, whose only tensor is their output."""


class Activation(NamedTuple):
    """A tensor inside an encoder, (batch, length, width).

    Attributes:
        layer: The layer, counted from 0, or `EMBEDDINGS`.
        name: "q", "k" or "v", the output of a projection, heads concatenated; "context", what the heads give to the
            attention's output matrix, heads concatenated; "output", the hidden states after the layer.

    Example:
        >>> from edgemin_hf.modeling import EMBEDDINGS, Activation
        >>> [activation.name for activation in (Activation(EMBEDDINGS, "output"), Activation(0, "q"))]
        ['output', 'q']
    """

    layer: int
    name: Literal["q", "k", "v", "context", "output"]


class Layer:
    """One transformer layer: its matrices, whatever their family calls them.

    Args:
        module: The layer's module.
        family: Its family.
        call: How often the module runs before it is this layer: above 0 where layers share it.

    Example:
        >>> from transformers import DistilBertConfig, DistilBertModel
        >>> from edgemin_hf.modeling import Encoder
        >>> model = DistilBertModel(DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64))
        >>> layer = Encoder(model).layers[0]
        >>> layer.num_heads, layer.num_neurons, layer.attention_width
        (4, 64, 32)
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
        return head_count(self.module, self._family.head_count, self.attention_width)

    @property
    def num_neurons(self) -> int:
        """The feed-forward neurons that are left in this layer."""
        neurons: int = self.ffn_out.in_features
        return neurons

    @property
    def attention_width(self) -> int:
        """Width of a projection: the heads that are left, times their width."""
        width: int = self.attention_output.in_features
        return width


class HookPoint(NamedTuple):
    """Where an activation's tensor passes by.

    Attributes:
        module: A module of the model.
        call: Which of the module's calls in a forward pass, from 0.
        side: Whether the tensor goes in or comes out.
        read: Takes the activation's tensor out of the one that passes by.
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

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.modeling import Encoder
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> encoder = Encoder(BertModel(BertConfig(vocab_size=50, **shape)))
        >>> len(encoder.layers), encoder.head_size, [name for _, name, _ in encoder.embeddings()]
        (2, 8, ['word_embeddings', 'position_embeddings', 'token_type_embeddings'])
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
    def blocks(self) -> list[Layer]:
        """The layers that have weights of their own: all of them, but one of each group that ALBERT shares."""
        return [layer for layer in self.layers if layer.call == 0]

    @property
    def shares_layers(self) -> bool:
        """Whether several layers have the same weights."""
        return len(self.blocks) < len(self.layers)

    @property
    def embedding_projection(self) -> nn.Linear | None:
        """What widens the output of narrower tables; None where there is none."""
        path = self.family.embedding_projection
        # ELECTRA has it only where the widths differ.
        if path is None or not hasattr(self.base, path.split(".")[0]):
            return None
        projection: nn.Linear = attrgetter(path)(self.base)
        return projection

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables."""
        width: int = self.base.get_input_embeddings().embedding_dim
        return width

    @property
    def head_size(self) -> int:
        """Width of one attention head; the removal of heads does not change it."""
        size: int = self.config.hidden_size // self.config.num_attention_heads
        return size

    def hook_point(self, activation: Activation) -> HookPoint:
        """Return where the tensor `activation` passes by in a forward pass."""
        if activation.layer == EMBEDDINGS:
            return HookPoint(self._embedding_output(), 0, "output", _as_it_is)
        layer = self.layers[activation.layer]
        if activation.name == "context":
            return HookPoint(layer.attention_output, layer.call, "input", _as_it_is)
        if activation.name == "output":
            return HookPoint(self._end_of(activation.layer, layer), layer.call, "output", _as_it_is)
        return HookPoint(
            getattr(layer, activation.name), layer.call, "output", self._projection_reader(layer, activation.name)
        )

    def _embedding_output(self) -> nn.Module:
        return self.embedding_projection or self.base.embeddings

    def _end_of(self, index: int, layer: Layer) -> nn.Module:
        if index == self.config.num_hidden_layers - 1 and self.family.last_output is not None:
            return attrgetter(self.family.last_output)(self.base)
        if index == 0 and getattr(getattr(self.base, "encoder", None), "conv", None) is not None:
            return self.base.encoder.conv  # of large DeBERTa-v2, after the first layer
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

    def layers_above(self) -> dict[str, int]:
        """Return how many layers with weights of their own stand above each parameter of the model, by name.

        None above the last layer's, the pooler's and the head's; all of them above those of the embeddings, and of
        what all layers share, such as relative positions.
        """
        blocks = self.blocks
        above = {id(parameter): len(blocks) for parameter in self.base.parameters()}
        for index, layer in enumerate(blocks):
            for module in (layer.module, self._end_of(index, layer)):
                above |= {id(parameter): len(blocks) - 1 - index for parameter in module.parameters()}
        return {
            name: 0 if "pooler" in name.split(".") else above.get(id(parameter), 0)
            for name, parameter in self.model.named_parameters()
        }

    def embeddings(self) -> Iterator[tuple[nn.Module, str, nn.Embedding]]:
        """Yield each embedding table with its parent and its name there: words, positions, token types."""
        parent = self.base.embeddings
        for name, child in parent.named_children():
            if isinstance(child, nn.Embedding):
                yield parent, name, child

    def linears(self) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
        """Yield each linear layer, those of the head included, with its parent and its name there."""
        for parent in self.model.modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear):
                    yield parent, name, child


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
