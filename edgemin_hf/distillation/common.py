"""What several methods share: means that padding and batch borders do not change, maps between layers and widths."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import torch
from torch import Tensor, nn

from edgemin_hf.modeling.attention import attention_scores
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.hooks import Recording


def check_weights(config: object, *names: str) -> None:
    """Check the weights of a method's loss terms.

    Args:
        config: The method's settings.
        *names: Those of its fields that are weights.

    Raises:
        ValueError: If a weight is below 0 or not finite, or all are 0.
    """
    for name in names:
        if not 0 <= getattr(config, name) < inf:
            raise ValueError(f"{name}: {getattr(config, name)}; allowed: 0 or more")
    if not any(getattr(config, name) for name in names):
        raise ValueError(f"{', '.join(names)}: 0; allowed: at least one above 0")


def mask_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return which tokens are real, bool (batch, length); all of them where the inputs hold no attention mask."""
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"], dtype=torch.bool) if mask is None else mask != 0


def mean_over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """Average over the chosen tokens of each example, then over examples.

    So every example weighs the same, whatever its length, and neither accumulation nor the number of processes
    changes a loss. An example without a chosen token counts as zero.

    Args:
        values: A number for each token (batch, length).
        mask: Which tokens count, bool (batch, length).

    Returns:
        The scalar mean.
    """
    chosen = values.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return chosen.mean()


def need_teacher(teacher: Encoder | None, method: str) -> Encoder:
    """Return the teacher.

    Raises:
        ValueError: If there is none.
    """
    if teacher is None:
        raise ValueError(f"teacher_model: None; allowed: a model, since {method} compares the student with one")
    return teacher


def uniform_layers(student: Encoder, teacher: Encoder) -> list[int]:
    """Map each student layer to a teacher layer, evenly spaced and ending with the last.

    Layer m of M, counted from 1, learns from layer m * L / M of L, rounded up.

    Returns:
        The teacher's layers, counted from 0.
    """
    depth, limit = len(student.layers), len(teacher.layers)
    return [-(-(layer + 1) * limit // depth) - 1 for layer in range(depth)]


def recorded_scores(encoder: Encoder, recording: Recording, layer: int) -> Tensor:
    """Compute a layer's attention scores from its recorded queries and keys.

    In the precision of the weights, also where the model itself computes in a lower one.

    Returns:
        As `attention_scores`, (batch, heads, length, length).
    """
    q, k = (recording.activations[Activation(layer, name)] for name in ("q", "k"))
    with torch.autocast(q.device.type, enabled=False):
        return attention_scores(encoder, layer, q.to(encoder.model.dtype), k.to(encoder.model.dtype))


def new_projection(student_width: int, teacher_width: int) -> nn.Linear:
    """Return a linear map, to be learned, from the student's width to the teacher's.

    It starts at random, under PyTorch's seed, but as the identity where the widths are equal, since a student may then
    start from the teacher's own layers.
    """
    projection = nn.Linear(student_width, teacher_width)
    if student_width == teacher_width:
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    return projection


def projected(states: Tensor, projection: nn.Linear) -> Tensor:
    """Return the projection of states (..., student's width), computed in the projection's own dtype."""
    with torch.autocast(states.device.type, enabled=False):
        return projection(states.to(projection.weight.dtype))


def hidden_loss(student: Tensor, teacher: Tensor, projection: nn.Linear, mask: Tensor) -> Tensor:
    """Compute MSE(H_S W, H_T) of hidden states or embeddings, with a learned W.

    The mean squared error over the real tokens of an example and the teacher's width, averaged over examples.

    Args:
        student: H_S, (batch, length, student's width).
        teacher: H_T, (batch, length, teacher's width); no gradient flows to it.
        projection: W, from the student's width to the teacher's; it computes in its own dtype.
        mask: Which tokens are real, bool (batch, length).

    Returns:
        The scalar loss, in the projection's dtype.
    """
    difference = projected(student, projection) - teacher.detach()
    return mean_over_tokens(difference.square().mean(dim=-1), mask)
