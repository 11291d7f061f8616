"""Float32 master weights: what is trained, pruned, quantised and exported has them, whatever its checkpoint's dtype."""

from __future__ import annotations

import logging

import torch
from torch import nn

logger = logging.getLogger(__name__)

_HALVES = (torch.float16, torch.bfloat16)


def is_half(model: nn.Module) -> bool:
    """Return whether a model has weights in half precision."""
    return any(parameter.dtype in _HALVES for parameter in model.parameters())


def to_float_masters(model: nn.Module) -> None:
    """Turn a model's weights in half precision into float32, in place, and tell it; optimizers made before stay valid.

    Training computes in half precision by autocast, which keeps these masters: updates smaller than half precision's
    last digit would be lost in weights of bf16, and gradients of fp16 weights can't be unscaled.

    Args:
        model: The model.
    """
    if is_half(model):
        logger.warning("%s: its weights become float32; bf16=True or fp16=True computes in half", type(model).__name__)
        model.float()
