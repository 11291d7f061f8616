"""The check that an exported graph computes what the PyTorch model computed, to rounding."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.data.tokenization import encode
from edgemin_hf.export.manifest import Fidelity
from edgemin_hf.modeling.hooks import filter_forward_inputs

_BATCH = 16
_MARGIN = 4.0
_NOISE = 2.0**-22
_EPSILON = 1e-4

SAMPLE_TEXTS = (
    "My new card has not arrived yet, and I have been waiting for two weeks.",
    "What is the weather going to be like in Lisbon tomorrow morning?",
    "The committee approved the budget after a debate that lasted until midnight.",
    "A quietly moving film, though its last half hour outstays its welcome.",
    "Please set an alarm for half past six.",
    "Water boils at a lower temperature on a mountain, because the air pressure is lower there.",
    "He said that he would call, but he never did.",
    "Which of the two bridges is older?",
    "The shares fell by 3.2% on Tuesday, their largest loss since March.",
    "No.",
    "Stir the rice gently, add the stock one ladle at a time, and wait until it is absorbed.",
    "I'd like to know why an extra pound was charged on my statement!",
    "Her grandmother's house stood at the end of a lane lined with poplars.",
    "To reset the device, hold both buttons for ten seconds until the light turns blue.",
    "It was neither the first nor the last time that the train was late.",
    "Can you transfer £250 to my savings account and tell me the new balance?",
)
"""Sentences for the check where the caller has none of its own."""


class FidelityError(RuntimeError):
    """An exported graph does not compute what the PyTorch model computes."""


def check_fidelity(
    model: PreTrainedModel, graph: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text] = SAMPLE_TEXTS
) -> Fidelity:
    """Compare a graph with the model that it was exported from, on real text.

    Args:
        model: The trained model: plain, or with fake-quantised modules.
        graph: Its ONNX file.
        tokenizer: The model's tokenizer.
        texts: Texts, or pairs of texts, to compare on.

    Returns:
        The outcome.

    Raises:
        FidelityError: If the outputs differ by more than rounding explains.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf.export import check_fidelity, export_onnx
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> with TemporaryDirectory() as above:
        ...     folder = export_onnx(model, tokenizer, f"{above}/edge", texts=["card"]).folder
        ...     fidelity = check_fidelity(model, folder / "onnx" / "model.onnx", tokenizer, ["card", "my card"])
        >>> fidelity.error <= fidelity.limit, fidelity.examples
        (True, 2)
    """
    model = float_copy(model)
    disturbed = _disturbed(float_copy(model))
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    errors: list[float] = []
    floors: list[float] = []
    sizes: list[float] = []
    for batch in _batches(tokenizer, texts):
        with torch.inference_mode():
            inputs = filter_forward_inputs(model, {name: torch.from_numpy(array) for name, array in batch.items()})
            ours = model(**inputs)[0].numpy()
            noisy = disturbed(**inputs)[0].numpy()
        names = [node.name for node in session.get_inputs()]
        theirs = session.run(None, {name: batch[name] for name in names})[0]
        for found, difference in ((errors, theirs - ours), (floors, noisy - ours), (sizes, ours)):
            found.extend(_mean_of_each_text(np.abs(difference), batch["attention_mask"]))
    error, floor, size = (float(np.quantile(found, 0.75)) for found in (errors, floors, sizes))
    limit = max(_MARGIN * floor, _EPSILON * size)
    if not error <= limit:
        raise FidelityError(
            f"{graph.name} differs from the PyTorch model by {error:.2e} (upper quartile of {len(texts)} texts); "
            f"rounding explains at most {limit:.2e}"
        )
    return Fidelity(error, floor, limit, len(texts))


def float_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy in float32, on the CPU, in evaluation mode."""
    copied = copy.deepcopy(model)
    # Trainer leaves a forward on the instance that autocasts to its precision; the class's own is meant here.
    copied.__dict__.pop("forward", None)
    return copied.cpu().float().eval()


def _mean_of_each_text(values: NDArray[np.float32], mask: NDArray[np.int64]) -> list[float]:
    """Average (batch, labels), or (batch, length, width) over real tokens."""
    if values.ndim == 3:
        values = (values * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return [float(value) for value in values.mean(axis=1)]


def _disturbed(model: nn.Module) -> nn.Module:
    """Add noise to the input of every linear layer, the same at every call of the check."""
    generator = torch.Generator().manual_seed(0)

    def disturb(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        size = args[0].square().mean(dim=-1, keepdim=True).sqrt()
        return (args[0] + _NOISE * size * torch.randn(args[0].shape, generator=generator), *args[1:])

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(disturb)
    return model


def _batches(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]) -> Iterator[dict[str, NDArray[np.int64]]]:
    for start in range(0, len(texts), _BATCH):
        part = list(texts[start : start + _BATCH])
        longest = min(128, tokenizer.model_max_length)
        encoded = encode(tokenizer, part, longest, padding=True, return_tensors="np")
        yield {name: array.astype(np.int64) for name, array in encoded.items()}
