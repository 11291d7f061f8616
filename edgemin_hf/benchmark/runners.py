"""One way to run a model, whatever its runtime: ready inputs in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edgemin_hf.distillation.capture import accepted
from edgemin_hf.loading import load_pruned

Inputs = Mapping[str, np.ndarray]
"""Token ids and masks, int64 (1, length), without padding."""


class PyTorchRunner:
    """Runs a checkpoint in PyTorch: fp32, inference mode, and SDPA attention where the family has it (the default).

    Args:
        folder: The checkpoint.
        threads: Threads of a pass; PyTorch's setting is global, so all runners of a process take the same.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self.model = load_pruned(folder)
        self.model.eval()

    def prepare(self, inputs: Inputs) -> Any:
        """Turns inputs into what `run` takes, outside of the measured time."""
        return accepted(self.model, {name: torch.from_numpy(array) for name, array in inputs.items()})

    def run(self, prepared: Any) -> np.ndarray:
        """Returns the logits (1, labels)."""
        with torch.inference_mode():
            return self.model(**prepared).logits.numpy()


class OnnxRunner:
    """Runs a graph in ONNX Runtime on the CPU.

    Args:
        graph: The ONNX file.
        threads: Threads of a pass.
    """

    def __init__(self, graph: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self.names = [node.name for node in self.session.get_inputs()]

    def prepare(self, inputs: Inputs) -> Any:
        """Turns inputs into what `run` takes, outside of the measured time."""
        return {name: inputs[name] for name in self.names}

    def run(self, prepared: Any) -> np.ndarray:
        """Returns the logits (1, labels)."""
        return self.session.run(None, prepared)[0]


Runner = PyTorchRunner | OnnxRunner
