"""The whole call, text in and logits out, as a server without PyTorch makes it: tokenizers and a runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgemin_hf.benchmark.runners import Runner
from edgemin_hf.data.tables import Text


class WholeCall:
    """Answer a text by a graph and its tokenizer.

    Args:
        runner: What runs the graph.
        tokenizer: The `tokenizer.json` of its model.
        max_length: Tokens after which a text is cut.
    """

    def __init__(self, runner: Runner, tokenizer: Path, max_length: int) -> None:
        self.runner = runner
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(max_length)
        self.tokenizer.no_padding()

    def inputs(self, text: Text) -> dict[str, NDArray[np.int64]]:
        """Return the inputs (1, length) of a text or a pair."""
        encoding = self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode(*text)
        given = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        return {name: np.array([values], dtype=np.int64) for name, values in given.items()}

    def __call__(self, text: Text) -> NDArray[np.float32]:
        """Return the logits (1, labels) of a text or a pair."""
        return self.runner.run(self.runner.prepare(self.inputs(text)))
