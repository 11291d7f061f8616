"""TinyBERT: embeddings, hidden states and attention scores, layer by layer (Jiao et al. 2020, arXiv 1909.10351).

The paper then trains the prediction layer (equation 10). That is `TaskDistillationConfig(soft_weight=1, hard_weight=0,
temperature=1)`: cross-entropy with the teacher's predictions is its KL and their entropy, which has no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import (
    check_weights,
    hidden_loss,
    mask_of,
    mean_over_tokens,
    need_teacher,
    new_projection,
    recorded_scores,
    uniform_layers,
)
from edgemin_hf.modeling.attention import FAR_AWAY, check_scores
from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import Recording


@dataclass
class TinyBERTConfig(Method):
    """Settings of TinyBERT's intermediate layers.

    One learned linear map with a bias takes the student's embeddings and all its hidden states to the teacher's width,
    as in the authors' code; the paper writes W_e and W_h. It starts as the identity where the widths are equal, since
    a student may then start from the teacher's own layers.

    Attributes:
        embedding_weight: Weight of the embeddings' mean squared error (equation 9).
        hidden_weight: Weight of the hidden states' mean squared error, summed over the student's layers (equation 8).
        attention_weight: Weight of the attention scores' mean squared error, likewise (equation 7); above 0 the head
            counts must be equal.
        layers: The teacher's layer, counted from 1, that each student layer learns from; None spaces them evenly, the
            last from the last.

    Example:
        >>> from edgemin_hf import TinyBERTConfig
        >>> TinyBERTConfig(layers=[3, 6], attention_weight=0.0).layers
        (3, 6)
    """

    method: ClassVar[str] = "tinybert"

    embedding_weight: float = 1.0
    hidden_weight: float = 1.0
    attention_weight: float = 1.0
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.layers = None if self.layers is None else tuple(self.layers)
        check_weights(self, "embedding_weight", "hidden_weight", "attention_weight")

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If `layers` does not fit, or attention is to be compared and the head counts differ.
        """
        self._check_layers(student.num_hidden_layers, teacher.num_hidden_layers)
        self._check_heads(student.num_attention_heads, teacher.num_attention_heads)

    def objective(self, student: Encoder, teacher: Encoder | None) -> TinyBERTObjective:
        """Build the objective for two models; the projection starts at random, under PyTorch's seed.

        Raises:
            ValueError: If there is no teacher, `check_shapes` fails, or attention scores can't be computed.
        """
        teacher = need_teacher(teacher, "TinyBERT")
        self._check_layers(len(student.layers), len(teacher.layers))
        objective = TinyBERTObjective(self, student, teacher)
        if self.attention_weight:
            for layer, compared in zip(student.layers, objective.layers, strict=True):
                # The layers' own heads: some may have been removed.
                self._check_heads(layer.num_heads, teacher.layers[compared].num_heads)
            for encoder in (student, teacher):
                check_scores(encoder)
        return objective

    def _check_layers(self, depth: int, limit: int) -> None:
        layers = self.layers
        if layers is not None and (len(layers) != depth or not all(1 <= layer <= limit for layer in layers)):
            raise ValueError(
                f"layers: {list(layers)}; allowed: {depth} numbers, one a layer of the student, from 1 to {limit}, the "
                "teacher's depth"
            )

    def _check_heads(self, ours: int, theirs: int) -> None:
        if self.attention_weight and ours != theirs:
            raise ValueError(
                f"num_attention_heads: {ours}; allowed: {theirs}, the teacher's, or attention_weight 0, since TinyBERT "
                "compares head with head"
            )


class TinyBERTObjective:
    """Compare the embeddings, and each layer of the student with one of the teacher.

    Attributes:
        layers: The teacher's layer, from 0, that each student layer learns from.
        projections: The linear map from the student's width to the teacher's; None where attention alone is compared.
    """

    needs_student_logits = False
    needs_teacher_logits = False

    def __init__(self, config: TinyBERTConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self.student, self.teacher = student, teacher
        self.layers = (
            uniform_layers(student, teacher) if config.layers is None else [layer - 1 for layer in config.layers]
        )
        self.student_activations = _activations_read(config, range(len(self.layers)))
        self.teacher_activations = _activations_read(config, self.layers)
        self.projections: nn.Linear | None = None
        if config.embedding_weight or config.hidden_weight:
            self.projections = new_projection(student.config.hidden_size, teacher.config.hidden_size)

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms `tinybert_embedding`, `tinybert_hidden` and `tinybert_attention`; not those of weight 0."""
        config, terms, mask = self.config, dict[str, Tensor](), mask_of(inputs)
        if config.embedding_weight:
            activation = Activation(EMBEDDINGS, "output")
            assert self.projections is not None  # noqa: S101 - embedding_weight
            loss = hidden_loss(student.activations[activation], teacher.activations[activation], self.projections, mask)
            terms["tinybert_embedding"] = config.embedding_weight * loss
        if config.hidden_weight:
            assert self.projections is not None  # noqa: S101 - hidden_weight
            losses = [
                hidden_loss(
                    student.activations[Activation(ours, "output")],
                    teacher.activations[Activation(theirs, "output")],
                    self.projections,
                    mask,
                )
                for ours, theirs in enumerate(self.layers)
            ]
            terms["tinybert_hidden"] = config.hidden_weight * torch.stack(losses).sum()
        if config.attention_weight:
            # Checkpointed: the maps of one layer are held at a time, not those of all until the backward pass.
            losses = [
                checkpoint(self._attention, student, teacher, layer, mask, use_reentrant=False)
                for layer in range(len(self.layers))
            ]
            terms["tinybert_attention"] = config.attention_weight * torch.stack(losses).sum()
        return terms

    def _attention(self, student: Recording, teacher: Recording, layer: int, mask: Tensor) -> Tensor:
        ours = recorded_scores(self.student, student, layer)
        with torch.no_grad():
            theirs = recorded_scores(self.teacher, teacher, self.layers[layer])
        return attention_loss(ours, theirs, mask)


def _activations_read(config: TinyBERTConfig, layers: Sequence[int]) -> list[Activation]:
    activations = [Activation(EMBEDDINGS, "output")] if config.embedding_weight else []
    for layer in layers:
        activations += [Activation(layer, "output")] if config.hidden_weight else []
        activations += [Activation(layer, "q"), Activation(layer, "k")] if config.attention_weight else []
    return activations


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Compute the mean over heads of MSE(A_S, A_T), of scores before softmax (arXiv 1909.10351, equation 7).

    The mean squared error over an example's pairs of real tokens, averaged over examples. What either model keeps out
    of its sight (`FAR_AWAY`) counts as equal, that is as zero in both.

    Args:
        student: A_S, scaled scores (batch, heads, length, length).
        teacher: A_T, likewise; no gradient flows to it.
        mask: Which tokens are real, bool (batch, length).

    Returns:
        The scalar loss, float64 for float64 scores of the student, else float32.

    Raises:
        ValueError: If the two shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student: scores of shape {list(student.shape)}; allowed: {list(teacher.shape)}, the teacher's"
        )
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    seen = mask[:, None, :, None] & mask[:, None, None] & (student > FAR_AWAY / 2) & (teacher > FAR_AWAY / 2)
    with torch.autocast(student.device.type, enabled=False):
        difference = (student.to(dtype) - teacher.detach().to(dtype)).masked_fill(~seen, 0)
        rows = torch.linalg.vecdot(difference, difference).mean(dim=1)
        return mean_over_tokens(rows / mask.sum(dim=1, keepdim=True).clamp(min=1), mask)
