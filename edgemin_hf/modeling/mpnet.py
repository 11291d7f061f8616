"""MPNet's attention without some of its heads: the relative position bias that all layers share has one for each."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from torch import Tensor
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention

# Up to transformers 4.57 there is a mask of heads among them.
_ARGUMENTS = tuple(inspect.signature(MPNetSelfAttention.forward).parameters)[1:]


class PrunedMPNetAttention(MPNetSelfAttention):
    """An attention that reads of the shared bias (1, heads, length, length) what its own heads need.

    Attributes:
        bias_heads: The heads of the bias, by their first numbers.
    """

    bias_heads: list[int]

    def forward(self, *args: Tensor | bool | None, **kwargs: object) -> tuple[Tensor, ...]:
        """Compute the attention of the heads that are left."""
        given = dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
        if isinstance(bias := given.get("position_bias"), Tensor):
            given["position_bias"] = bias[:, self.bias_heads]
        outputs: tuple[Tensor, ...] = super().forward(**given)
        return outputs


def keep_bias_heads(attention: MPNetSelfAttention, heads: Sequence[int]) -> None:
    """Make an attention, in place, read these heads of the shared bias, given by their first numbers."""
    attention.__class__ = PrunedMPNetAttention
    attention.bias_heads = list(heads)
