"""Recording tensors of a padded batch without computing most of its padding."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from torch import Tensor
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Activation
from edgemin_hf.modeling.hooks import Recording, record

# A pass takes examples while they are at least this share of its longest one, ...
_ALIKE = 0.75
# ... or while it computes fewer tokens than this: reading the weights is then what takes the time.
_TOKENS = 128


def record_by_length(
    model: PreTrainedModel,
    activations: Collection[Activation],
    inputs: Mapping[str, Tensor],
    forward: Callable[..., Mapping[str, Tensor]] | None = None,
) -> Recording:
    """Record tensors as `record` does, from passes over examples of like length, each cut to its longest.

    A batch of like lengths goes through one pass, and so does one without an attention mask, with padding elsewhere
    than on the right, or on a GPU, which is at its best with much to do at once.

    Args:
        model: The model; what it computes for an example must not depend on the others.
        activations: The tensors to record.
        inputs: The model's inputs, labels left out.
        forward: What to call instead of the model.

    Returns:
        The recorded tensors, (batch, length, width), with zeros for padding that was not computed.
    """
    mask = inputs.get("attention_mask")
    if mask is None or mask.device.type != "cpu" or not bool((mask[:, 1:] <= mask[:, :-1]).all()):
        return record(model, activations, logits=False, inputs=inputs, forward=forward)
    recording = Recording()
    for length, examples in _like_lengths((mask != 0).sum(dim=1)):
        part = {
            name: tensor[examples, :length] if tensor.shape[:2] == mask.shape else tensor[examples]
            for name, tensor in inputs.items()
        }
        for activation, tensor in record(
            model, activations, logits=False, inputs=part, forward=forward
        ).activations.items():
            padded = recording.activations.setdefault(activation, tensor.new_zeros(*mask.shape, tensor.shape[-1]))
            padded[examples, :length] = tensor
    return recording


def _like_lengths(lengths: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield groups of examples (their indices), the longest first, each with the length of its longest."""
    ordered, order = lengths.sort(descending=True)
    found: list[int] = ordered.tolist()
    start = 0
    for end in range(1, len(found) + 1):
        longest = found[start]
        if end == len(found) or (found[end] < _ALIKE * longest and (end - start) * longest >= _TOKENS):
            yield longest, order[start:end]
            start = end
