"""A graph in ONNX Runtime: arrays of token ids in, and out what its head gives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgemin_hf.runtime.sessions import session_options

TOKEN_TYPES = "token_type_ids"  # noqa: S105 - no password
Arrays = Mapping[str, NDArray[np.int64]]
"""Token ids and masks by the names of a graph's inputs, int64 (batch, length) each."""

HEADS: tuple[tuple[str, ...], ...] = (("logits",), ("start_logits", "end_logits"), ("sentence_embedding",))
"""The names of what heads give; parts that belong together are stacked on a last axis."""


def head_names(names: Collection[str]) -> tuple[str, ...]:
    """Return those of a model's or a graph's outputs that its head gives; none where it has no head.

    Example:
        >>> from edgemin_hf.runtime.graph import head_names
        >>> head_names(["loss", "start_logits", "end_logits"]), head_names(["last_hidden_state"])
        (('start_logits', 'end_logits'), ())
    """
    return next((head for head in HEADS if set(head) <= set(names)), ())


def wanted(outputs: Sequence[str]) -> list[str]:
    """Return the names of a graph's outputs that its head gives; of another graph that of the first."""
    return list(head_names(outputs)) or list(outputs[:1])


def graph_feed(names: Iterable[str], inputs: Arrays) -> dict[str, NDArray[np.int64]]:
    """Return what a graph takes, by its inputs' names; token types that the tokenizer does not give are 0."""
    return {name: np.zeros_like(inputs["input_ids"]) if name not in inputs else inputs[name] for name in names}


def joined(outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the parts that a head gives as one array, on a last axis where there are several."""
    return outputs[0] if len(outputs) == 1 else np.stack(outputs, axis=-1)


class Graph:
    """A graph that is ready to run.

    Args:
        file: The ONNX file.
        threads: Threads of a pass.
        providers: ONNX Runtime's execution providers; None takes the CPU's.
        spinning: Whether threads spin while they wait, as ONNX Runtime does by itself: the shortest latency, and a
            processor that other programs lack.

    Attributes:
        session: ONNX Runtime's session; several threads may run it at once.
        names: The names of its inputs.
        outputs: The names of the outputs that its head gives; of a graph without a known head that of the first.

    Raises:
        ValueError: If ONNX Runtime can't load it, or `threads` is below 1; one line.
    """

    def __init__(
        self, file: Path, threads: int = 1, providers: Sequence[str] | None = None, spinning: bool = True
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads: {threads}; allowed: 1 or more")
        known = onnxruntime.get_available_providers()
        for provider in providers or ():
            if provider not in known:
                raise ValueError(f"providers: {provider}; allowed: {', '.join(known)}")
        options = session_options(threads)
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        chosen = ["CPUExecutionProvider"] if providers is None else list(providers)
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=chosen)
        except Exception as error:  # of ONNX Runtime's own kinds, which derive from nothing in common
            told = " ".join(str(error).split())[:200]
            raise ValueError(f"{file}: ONNX Runtime {onnxruntime.__version__} can't load it: {told}") from None
        self.names = [node.name for node in self.session.get_inputs()]
        self.outputs = wanted([node.name for node in self.session.get_outputs()])

    def feed(self, inputs: Arrays) -> dict[str, NDArray[np.int64]]:
        """Return what `run` takes, of a tokenizer's arrays."""
        return graph_feed(self.names, inputs)

    def run(self, feed: Arrays) -> NDArray[np.float32]:
        """Return what the head gives, float32 (batch, width) or (batch, length, width)."""
        return joined(self.session.run(self.outputs, feed))
