"""A student's first weights, carried over from a teacher of other widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder, Layer
from edgemin_hf.modeling.factorization import factorize, mean_free_axes
from edgemin_hf.modeling.families import first_position, shape_of
from edgemin_hf.modeling.surgery import stacked

Initialization = Literal["copy", "slice", "svd", "random"]
INITIALIZATIONS: tuple[Initialization, ...] = get_args(Initialization)

# Random token ids that the teacher's residual stream is measured on: more tokens than any encoder is wide.
_TEXTS, _LENGTH = 64, 32


@torch.no_grad()
def initialize(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: Sequence[int],
    initialization: Initialization,
    token_counts: Tensor | None = None,
) -> None:
    """Fill a fresh student with a teacher's weights; what the teacher lacks stays as it is.

    Where all widths agree, everything but "random" copies. Where they differ, "copy" takes the weights outside the
    layers that have the student's shape, and no layer. "slice" and "svd" change the width of every matrix by its axes.
    With H, A, F the teacher's widths of the residual stream, of all heads and of the feed-forward network, h, a, f the
    student's, and R (h, H), S (a, A) and N (f, F):

        word, position and type tables    E' = E R^T
        query, key, value                 W' = S W R^T            b' = S b
        attention output                  W' = R W S^T            b' = R b
        feed-forward, in and out          W' = N W R^T, R W N^T   b' = N b, R b
        LayerNorm                         gain' = G gain          bias' = R bias
        pooler and head                   W' = R W R^T or W R^T   b' = R b or b

    - S and N pick rows. N: evenly spaced neurons. S: evenly spaced heads, and evenly spaced dimensions of each; a head
      that is wider than the teacher's takes the dimensions of several heads in turn. In the last layer, S is evenly
      spaced over all heads at once, so that MiniLMv2's relation heads find their dimensions where the teacher's stand
      (not with rotary positions, whose pairs of dimensions stay together). Heads that the teacher has lost are random,
      with columns of zeros in the attention's output: they add nothing yet.
    - R is one for the whole model, as the skip connections ask. It comes from the hidden states of all the teacher's
      layers on random token ids, each layer scaled to equal energy. "slice" (weight selection, arXiv 2311.18823, by
      importance as in weight subcloning, arXiv 2312.09299): R picks the h dimensions with the most energy. "svd" (as in
      SliceGPT, arXiv 2401.15024): R projects on the h - 1 right singular vectors with the largest singular values, and
      turns them so that every projected vector has mean 0, as LayerNorm asks.

    Of a shorter table of positions the first rows are taken. Tables that are narrower than the teacher's, with a
    projection behind them, hold what stands above in two factors: `factorize` has the formulas.

    A narrower stream is an approximation. LayerNorm takes mean and variance over fewer dimensions, and is not
    rotation-equivariant: "svd" would turn its diagonal of gains into a full matrix, for which G, with rows of R * R
    scaled to sum 1, puts means of the gains ("slice" has G = R). Pooler and head apply
    nonlinearities to what is turned.

    Args:
        student: The student, freshly made, of the teacher's layout.
        teacher: The teacher; its mode is as before when this returns.
        layers: For each student layer the index of the teacher's, from 0.
        initialization: "copy", "slice" or "svd"; "random" does nothing.
        token_counts: How often each token occurs in the texts to come: what narrower tables hold best.
    """
    if initialization != "random":
        _Transfer(student, teacher, initialization).run(layers, token_counts)


class _Transfer:
    """The change of each kind of axis: indices that pick, a matrix (new, old) that projects, None where all stays."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, initialization: Initialization) -> None:
        self.student, self.teacher = Encoder(student), Encoder(teacher)
        self.family = self.teacher.family
        self.old, self.new = shape_of(teacher.config), shape_of(student.config)
        self.copies_only = initialization == "copy" and self.old[1:] != self.new[1:]
        residual = None
        if self.old.hidden_size != self.new.hidden_size and not self.copies_only:
            residual = _residual_change(teacher, self.new.hidden_size, initialization)
        # Outside what `_fill_layer` names, sizes tell the axes: the residual stream's, and MPNet's bias by head.
        self.by_size = {
            (self.old.hidden_size, self.new.hidden_size): residual,
            (self.old.num_attention_heads, self.new.num_attention_heads): self._heads(self.old.num_attention_heads)[
                :, 0
            ],
        }

    def run(self, layers: Sequence[int], token_counts: Tensor | None) -> None:
        prefix = f"{self.family.layers}."
        weights, targets = _by_name(self.teacher.model), _by_name(self.student.model)
        width = self.student.embedding_width
        if self.student.embedding_projection and width < self.teacher.embedding_width and not self.copies_only:
            weights |= self._factorized(width, token_counts)
        for name, target in targets.items():
            if name in weights and not name.startswith(prefix):
                self._fill(name, target, weights[name])
        ours, theirs = self.student.layers, self.teacher.layers
        if not self.copies_only:
            for layer, index in zip(ours, layers, strict=True):
                self._fill_layer(layer, theirs[index], last=layer.module is ours[-1].module)

    def _factorized(self, width: int, counts: Tensor | None) -> dict[str, Tensor]:
        """Return, by the student's names, the teacher's embeddings in narrower tables and a projection."""
        tables = {name: table.weight for _, name, table in self.teacher.embeddings()}
        for _, name, table in self.student.embeddings():
            tables[name] = tables[name][: table.num_embeddings]
        tables, wider = factorize(tables, width, {} if counts is None else {"word_embeddings": counts})
        norm, first = self.teacher.base.embeddings.LayerNorm, self.teacher.embedding_projection
        weight, bias = norm.weight.double()[:, None] * wider, norm.bias.double()
        if first is not None:
            weight, bias = first.weight.double() @ weight, first.weight.double() @ bias + first.bias.double()
        path, ones = self.student.family.embedding_projection, torch.ones(width)
        factors = {f"embeddings.{name}.weight": table for name, table in tables.items()}
        factors |= {"embeddings.LayerNorm.weight": ones, "embeddings.LayerNorm.bias": torch.zeros(width)}
        return factors | {f"{path}.weight": weight, f"{path}.bias": bias}

    def _fill_layer(self, ours: Layer, theirs: Layer, last: bool) -> None:
        rows = self._head_rows(theirs, last)
        neurons = _evenly_spaced(self.new.intermediate_size, theirs.num_neurons)
        family = self.family
        projections = {family.q, family.k, family.v}
        first = dict.fromkeys([*projections, *family.head_rows], rows)
        if family.fused is not None:
            first |= dict.fromkeys(projections, self._fused_rows(rows, theirs.attention_width))
        first[family.ffn_in] = stacked(neurons, theirs.num_neurons, theirs.ffn_in.out_features // theirs.num_neurons)
        second = {family.attention_output: rows, family.ffn_out: neurons}
        weights = theirs.module.state_dict()
        for name, target in ours.module.state_dict().items():
            if name not in weights:
                continue
            path = name if name in first else name.rpartition(".")[0]
            known = {0: first[path]} if path in first else {}
            if path in second and target.ndim == 2:
                known[1] = second[path]
            if name == f"{family.attention_output}.weight":
                target.zero_()
            self._fill(name, target, weights[name], known)

    def _fill(self, name: str, target: Tensor, source: Tensor, known: dict[int, Tensor] | None = None) -> None:
        if name.endswith("position_embeddings.weight"):
            source = source[: len(target)]
        if self.copies_only and source.shape != target.shape:
            return
        source = source.to(target.dtype)  # a teacher in bf16 is projected in float32
        gain = source.ndim == 1 and name.endswith("weight")
        for axis in range(source.ndim):
            sizes = (source.shape[axis], target.shape[axis])
            change = (
                known[axis] if known and axis in known else self.by_size.get(sizes) if sizes[0] != sizes[1] else None
            )
            source = _along(source, axis, change, gain)
        if known is None and source.shape != target.shape:
            return  # the tables, or a masked-LM head, of a teacher that has a projection where the student has none
        # Shorter than the target only where the teacher has lost heads.
        target[tuple(slice(size) for size in source.shape)] = source.to(target)

    def _heads(self, count: int) -> Tensor:
        """Return the teacher's heads, of `count`, that each student head is made of: (heads, as many for each)."""
        joined = -(-self.student.head_size // self.teacher.head_size)
        filled = min(self.new.num_attention_heads, count // joined)
        return _evenly_spaced(filled, count)[:, None] + torch.arange(joined)

    def _head_rows(self, theirs: Layer, last: bool) -> Tensor:
        """Return the teacher's row for each row of a student projection."""
        if last and not self.family.rotary and self.new.hidden_size <= theirs.attention_width:
            return _evenly_spaced(self.new.hidden_size, theirs.attention_width)
        size = self.teacher.head_size
        # In turns, so that halves of a head stay halves: rotary positions pair them.
        heads = self._heads(theirs.num_heads)
        dimensions = (heads[:, None, :] * size + torch.arange(size)[:, None]).flatten(1)
        return dimensions[:, _evenly_spaced(self.student.head_size, dimensions.shape[1])].flatten()

    def _fused_rows(self, rows: Tensor, width: int) -> Tensor:
        if self.family.fused == "thirds":
            return stacked(rows, width, 3)
        size = self.teacher.head_size
        starts = (rows // size * 3 * size + rows % size).view(-1, 1, self.student.head_size)
        return (starts + size * torch.arange(3)[:, None]).flatten()


def _residual_change(teacher: PreTrainedModel, width: int, initialization: Initialization) -> Tensor:
    """Return how the residual stream gets narrower: indices (width,) of dimensions, or a matrix (width, old width)."""
    states = _hidden_states(teacher)
    if initialization == "slice":
        return states.square().sum(0).topk(width).indices.sort().values
    gram = (states.T @ states).double()
    vectors = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, : width - 1]
    return mean_free_axes(width).to(gram.device) @ vectors.T


def _hidden_states(teacher: PreTrainedModel) -> Tensor:
    """Return hidden states (layers x tokens, width) on random token ids, each layer's of norm 1."""
    generator = torch.Generator().manual_seed(0)
    config = teacher.config
    length = min(_LENGTH, config.max_position_embeddings - first_position(config))
    ids = torch.randint(config.vocab_size, (_TEXTS, length), generator=generator).to(teacher.device)
    training = teacher.training
    outputs = teacher.eval().base_model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    teacher.train(training)
    dtype = torch.promote_types(teacher.dtype, torch.float32)
    states = [state.flatten(0, 1).to(dtype) for state in outputs.hidden_states]
    return torch.cat([state / state.norm() for state in states])


def _along(tensor: Tensor, axis: int, change: Tensor | None, gain: bool) -> Tensor:
    if change is None:
        return tensor
    change = change.to(tensor.device)
    if change.dtype == torch.long:
        return tensor.index_select(axis, change)
    matrix = change.square() / change.square().sum(1, keepdim=True) if gain else change
    dtype = torch.promote_types(tensor.dtype, torch.float32)
    return torch.movedim(torch.tensordot(matrix.to(dtype), tensor.to(dtype), ([1], [axis])), 0, axis)


def _evenly_spaced(count: int, of: int) -> Tensor:
    return torch.arange(count) * of // max(count, 1)


def _by_name(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's weights by their names without the base model's prefix, which differs within a layout."""
    prefix = f"{model.base_model_prefix}."
    return {name.removeprefix(prefix): weight for name, weight in model.state_dict().items()}
