"""The check that an exported graph computes what the PyTorch model computed, to rounding."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.export.check_texts import Encoded, enough_texts, long_batches, short_batches
from edgemin_hf.export.manifest import Fidelity
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.outputs import Array, head_output
from edgemin_hf.modeling.tokenizers import fitted
from edgemin_hf.quantization.integer import quantized_weights
from edgemin_hf.runtime.graph import graph_feed
from edgemin_hf.runtime.sessions import session_options

_MARGIN = 4.0
_NOISE = 2.0**-22
_EPSILON = 1e-4
# In a long text of a quantised model some of the many values cross to another point of their grid by chance.
LONG_EPSILON = 1e-2

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
    model: PreTrainedModel,
    graph: Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text] = SAMPLE_TEXTS,
    max_length: int | None = None,
) -> Fidelity:
    """Compare a graph with the model that it was exported from, on real text, and on text as long as it may be.

    Args:
        model: The trained model: plain, or with fake-quantised modules.
        graph: Its ONNX file.
        tokenizer: The model's tokenizer.
        texts: Texts, or pairs of texts, to compare on; where there are few, combinations of them too.
        max_length: Tokens after which the task cuts its texts; None where nothing but the model bounds them.

    Returns:
        The outcome.

    Raises:
        FidelityError: If the outputs differ by more than rounding explains.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
        >>> from edgemin_hf.export import check_fidelity, export_onnx
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "card": 2}, "[UNK]"))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="[UNK]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=3, **shape)).eval()
        >>> with TemporaryDirectory() as above:
        ...     folder = export_onnx(model, tokenizer, f"{above}/edge", texts=["card"]).folder
        ...     fidelity = check_fidelity(model, folder / "onnx" / "model.onnx", tokenizer, ["card", "my card"])
        >>> fidelity.error <= fidelity.limit, fidelity.examples, fidelity.longest
        (True, 64, 512)
    """
    model = float_copy(model)
    tokenizer, texts = fitted(tokenizer, model.config), enough_texts(texts)
    compared = Comparison(model, graph)
    for batch in short_batches(tokenizer, model.config, texts):
        compared.add(batch)
    found = compared.outcome()
    _refuse(found, graph, f"median of {found.examples} texts")
    far, longest = Comparison(model, graph), 0
    for batch in long_batches(tokenizer, model.config, texts, max_length):
        far.add(batch)
        longest = max(longest, batch["input_ids"].shape[1])
    epsilon = _EPSILON if quantized_weights(model) is None else LONG_EPSILON
    _refuse(far.outcome(epsilon), graph, f"median of texts of up to {longest} tokens")
    return replace(found, longest=longest)


def _refuse(found: Fidelity, graph: Path, told: str) -> None:
    if not found.error <= found.limit:
        raise FidelityError(
            f"{graph.name} differs from the PyTorch model by {found.error:.2e} ({told}); rounding explains at most "
            f"{found.limit:.2e}"
        )


class Comparison:
    """A model, the same with noise, and its graph, side by side on batches of texts.

    Args:
        model: What `float_copy` made.
        graph: The ONNX file.

    Attributes:
        errors: The mean absolute difference of each text's outputs between graph and model.
        floors: Likewise between the model with noise and without.
        sizes: The mean absolute value of each text's outputs.
    """

    def __init__(self, model: PreTrainedModel, graph: Path) -> None:
        self._model, self._disturbed = model, _disturbed(float_copy(model))
        self._session = onnxruntime.InferenceSession(str(graph), session_options(), providers=["CPUExecutionProvider"])
        self._names = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        self.errors: list[float] = []
        self.floors: list[float] = []
        self.sizes: list[float] = []

    def add(self, batch: Encoded) -> None:
        """Run a batch through all three."""
        with torch.inference_mode():
            inputs = filter_forward_inputs(
                self._model, {name: torch.from_numpy(array) for name, array in batch.items()}
            )
            ours, noisy = (_answer(model(**inputs)).numpy() for model in (self._model, self._disturbed))
        theirs = _answer(dict(zip(self._outputs, self._session.run(None, graph_feed(self._names, batch)), strict=True)))
        for found, difference in ((self.errors, theirs - ours), (self.floors, noisy - ours), (self.sizes, ours)):
            found.extend(_mean_of_each_text(np.abs(difference), batch["attention_mask"]))

    def outcome(self, epsilon: float = _EPSILON) -> Fidelity:
        """Return what the texts so far say together, where a share `epsilon` of the output's size is always allowed."""
        floor, size = (float(np.quantile(found, 0.75)) for found in (self.floors, self.sizes))
        limit = max(_MARGIN * floor, epsilon * size)
        return Fidelity(float(np.median(self.errors)), floor, limit, len(self.errors))


def _answer(outputs: Mapping[str, Array]) -> Array:
    """Return what a head gives, or the first output where there is none."""
    found = head_output(outputs)
    return next(iter(outputs.values())) if found is None else found


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
