"""Attention scores from queries and keys, as each encoder family computes them.

So that no model needs to run its eager attention for the sake of its maps.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.utils.compat import rotated, sliding_window

FAR_AWAY = -1e4
"""The score of a token outside the sliding window: far below any other, and still finite in a difference."""


def check_scores(encoder: Encoder) -> None:
    """Check that a model's attention scores can be computed from its queries and keys.

    Raises:
        ValueError: If not, naming what stands in the way.
    """
    kind = getattr(encoder.config, "position_embedding_type", "absolute")
    if kind != "absolute":
        raise ValueError(f"position_embedding_type: {kind}; allowed: absolute, for objectives on attention maps")


def scores_are_products(encoder: Encoder) -> bool:
    """Return whether a model's scores are products of queries and keys alone, without relative positions."""
    return encoder.config.model_type not in ("mpnet", "deberta", "deberta-v2", "modernbert")


def reach(encoder: Encoder, layer: int) -> float:
    """Return how many tokens to either side a layer's attention sees: a sliding window's half, or infinity."""
    return sliding_window(encoder.layers[layer].module.attn) if _rotates(encoder) else inf


def _rotates(encoder: Encoder) -> bool:
    model_type: str = encoder.config.model_type
    return model_type == "modernbert"


def attention_scores(encoder: Encoder, layer: int, q: Tensor, k: Tensor) -> Tensor:
    """Compute the scaled attention scores of one layer, before softmax; padding is not masked.

    Relative positions are in: MPNet's shared bias, DeBERTa's disentangled terms (arXiv 2006.03654, equation 4) without
    dropout, ModernBERT's rotation and, as `FAR_AWAY`, its sliding window.

    Args:
        encoder: The model that `q` and `k` were recorded in.
        layer: The layer, from 0.
        q: Queries (batch, length, width).
        k: Keys (batch, length, width).

    Returns:
        The scores (batch, heads, length, length).
    """
    view = encoder.layers[layer]
    q, k = (tensor.unflatten(-1, (view.num_heads, -1)).transpose(1, 2) for tensor in (q, k))
    kind = encoder.config.model_type
    if kind in ("deberta", "deberta-v2"):
        return _disentangled(encoder, view.module.attention.self, q, k)
    if _rotates(encoder):
        return _rotated(encoder.base, view.module, q, k)
    scores = _scaled_products(q, k)
    if kind == "mpnet":
        scores = scores + encoder.base.encoder.compute_position_bias(q.transpose(1, 2))
    return scores


def _scaled_products(q: Tensor, k: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # scaled first: products alone may overflow in fp16


def _rotated(base: PreTrainedModel, layer: nn.Module, q: Tensor, k: Tensor) -> Tensor:
    q, k = rotated(base, layer, q, k)
    scores = _scaled_products(q, k)
    window = sliding_window(layer.attn)
    if window == inf:
        return scores
    positions = torch.arange(q.shape[2], device=q.device)
    return scores.masked_fill((positions[:, None] - positions).abs() > window, FAR_AWAY)


def _disentangled(encoder: Encoder, attention: nn.Module, q: Tensor, k: Tensor) -> Tensor:
    factor = 1 + len(attention.pos_att_type)
    scaled = q * (q.shape[-1] * factor) ** -0.5
    scores = scaled @ k.transpose(-1, -2)
    if attention.relative_attention:
        stack = encoder.base.encoder
        distances, table = stack.get_rel_pos(q[:, 0]), stack.get_rel_embedding()
        if encoder.config.model_type == "deberta":
            scores = scores + attention.disentangled_att_bias(scaled, k, distances, table, factor)
        else:
            bias = attention.disentangled_attention_bias(q.flatten(0, 1), k.flatten(0, 1), distances, table, factor)
            scores = scores + bias.view_as(scores)
    mix = getattr(attention, "head_logits_proj", None)
    return scores if mix is None else mix(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
