"""What a model's head gives, as one tensor, whatever `transformers` calls it and in how many parts it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemin_hf.runtime.graph import head_names

Array = TypeVar("Array", Tensor, NDArray[np.float32])


def head_output(outputs: Mapping[str, Array]) -> Array | None:
    """Return what a head gives: (batch, width), or (batch, length, width) where it answers for each token.

    Args:
        outputs: The outputs of a model of `transformers`, or of a graph, by name.

    Returns:
        The tensor; None of a model without a head.

    Example:
        >>> import torch
        >>> from edgemin_hf.modeling.outputs import head_output
        >>> head_output({"start_logits": torch.zeros(2, 7), "end_logits": torch.zeros(2, 7)}).shape
        torch.Size([2, 7, 2])
    """
    parts = [outputs[name] for name in head_names(outputs)]
    if len(parts) <= 1:
        return parts[0] if parts else None
    return torch.stack(parts, -1) if isinstance(parts[0], Tensor) else np.stack(parts, -1)
