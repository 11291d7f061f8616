"""The whole call, text in and logits out, as a server without PyTorch makes it: tokenizers and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.data.tables import Text


class WholeCall:
    """Answer a text by a graph and its tokenizer.

    Args:
        graph: The ONNX file.
        tokenizer: The `tokenizer.json` of its model.
        max_length: Tokens after which a text is cut.
        threads: Threads of a pass.
    """

    def __init__(self, graph: Path, tokenizer: Path, max_length: int, threads: int = 1) -> None:
        self.runner = OnnxRunner(graph, threads)
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(max_length)
        self.tokenizer.no_padding()

    def __call__(self, text: Text) -> NDArray[np.float32]:
        """Return the logits (1, labels) of a text or a pair."""
        encoding = self.tokenizer.encode(text) if isinstance(text, str) else self.tokenizer.encode(*text)
        given = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        return self.runner.run({name: np.array([given[name]], dtype=np.int64) for name in self.runner.names})
