"""What a model answers to a few neutral texts: so that whoever runs an artefact elsewhere can see that it does."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgemin_hf.data.tables import Text
from edgemin_hf.data.tokenization import encode
from edgemin_hf.export.fidelity import SAMPLE_TEXTS, float_copy
from edgemin_hf.export.manifest import Output
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.outputs import head_output
from edgemin_hf.runtime.artefact import FIRST
from edgemin_hf.runtime.graph import graph_feed, head_names
from edgemin_hf.runtime.sessions import session_options
from edgemin_hf.runtime.verification import LONGEST

TEXTS = SAMPLE_TEXTS[:4]
"""The texts."""

_DIGITS = 5


def onnx_outputs(graph: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[Output, ...]:
    """Return what a graph's head gives for each of `TEXTS` in ONNX Runtime; nothing where it has no head."""
    session = onnxruntime.InferenceSession(str(graph), session_options(), providers=["CPUExecutionProvider"])
    wanted = head_names([node.name for node in session.get_outputs()])
    if not wanted:
        return ()
    names = [node.name for node in session.get_inputs()]
    feeds = (graph_feed(names, inputs) for inputs in inputs_of_each(tokenizer, TEXTS))
    answers = (head_output(dict(zip(wanted, session.run(wanted, feed), strict=True))) for feed in feeds)
    return tuple(rounded(answer) for answer in answers if answer is not None)


def torch_outputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[Output, ...]:
    """Return what a model's head gives for each of `TEXTS` in PyTorch; nothing where it has no head."""
    model = float_copy(model)
    found = []
    for inputs in inputs_of_each(tokenizer, TEXTS):
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        with torch.inference_mode():
            answer = head_output(model(**filter_forward_inputs(model, tensors)))
        if answer is None:
            return ()
        found.append(rounded(answer.numpy()))
    return tuple(found)


def inputs_of_each(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[Text], longest: int = LONGEST
) -> list[dict[str, NDArray[np.int64]]]:
    """Tokenise texts or pairs one by one, without padding, cut after 128 tokens or as told: int64 (1, length) each."""
    longest = min(longest, tokenizer.model_max_length)
    encoded = (encode(tokenizer, [text], longest, return_tensors="np") for text in texts)
    return [{name: array.astype(np.int64) for name, array in inputs.items()} for inputs in encoded]


def rounded(logits: NDArray[np.float32]) -> Output:
    """Round logits (1, labels), or the first ones of each token of (1, tokens, labels), to five digits."""
    if logits.ndim == 2:
        return _row(logits[0])
    return tuple(_row(token[:FIRST]) for token in logits[0])


def _row(logits: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in logits)
