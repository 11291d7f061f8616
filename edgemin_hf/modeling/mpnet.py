"""MPNet's attention without some of its heads: the relative position bias that all layers share has one for each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention


class PrunedMPNetAttention(MPNetSelfAttention):
    """An attention that reads of the shared bias (1, heads, length, length) what its own heads need.

    Attributes:
        bias_heads: The heads of the bias, by their first numbers.
    """

    bias_heads: list[int]

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: object,
    ) -> tuple[Tensor, ...]:
        """Compute the attention of the heads that are left."""
        if position_bias is not None:
            position_bias = position_bias[:, self.bias_heads]
        outputs: tuple[Tensor, ...] = super().forward(
            hidden_states, attention_mask, head_mask, position_bias, output_attentions, **kwargs
        )
        return outputs


def keep_bias_heads(attention: MPNetSelfAttention, heads: Sequence[int]) -> None:
    """Make an attention, in place, read these heads of the shared bias, given by their first numbers."""
    attention.__class__ = PrunedMPNetAttention
    attention.bias_heads = list(heads)
