"""One way to run a model, whatever its runtime: ready inputs in, and out what its head gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from edgemin_hf.export.openvino_graph import OpenVinoGraph
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.modeling.hooks import filter_forward_inputs
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.outputs import head_output
from edgemin_hf.runtime.graph import Graph

Inputs = Mapping[str, NDArray[np.int64]]
"""Token ids and masks, int64 (1, length), without padding."""

Prepared = Inputs | Mapping[str, Tensor]
"""What a runtime takes them as."""


class Runner(Protocol):
    """A model that is ready to run."""

    def prepare(self, inputs: Inputs) -> Prepared:
        """Turn inputs into what `run` takes, outside of the measured time."""
        ...

    def run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Return what the head gives, (1, width) or (1, length, width)."""
        ...


class PyTorchRunner:
    """Run a checkpoint in PyTorch: fp32, inference mode, and SDPA attention where the family has it (the default).

    Args:
        folder: The checkpoint.
        threads: Threads of a pass; PyTorch's setting is global, so all runners of a process take the same.
        auto_class: The `AutoModel...` class that knows its head.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf.benchmark import PyTorchRunner
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> with TemporaryDirectory() as folder:
        ...     BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
        ...     runner = PyTorchRunner(Path(folder), threads=1)
        >>> runner.run(runner.prepare({"input_ids": np.array([[2, 7, 8, 3]])})).shape
        (1, 2)
    """

    def __init__(self, folder: Path, threads: int, auto_class: AutoClass = AutoModelForSequenceClassification) -> None:
        torch.set_num_threads(threads)
        self.model = load_pruned(folder, auto_class)
        self.model.eval()

    def prepare(self, inputs: Inputs) -> Prepared:
        """Turn inputs into what `run` takes, outside of the measured time."""
        return filter_forward_inputs(self.model, {name: torch.from_numpy(array) for name, array in inputs.items()})

    def run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Return what the head gives, (1, width) or (1, length, width)."""
        with torch.inference_mode():
            found = head_output(self.model(**prepared))
        assert found is not None  # noqa: S101 - it was loaded with its head
        logits: NDArray[np.float32] = found.numpy()
        return logits


class OnnxRunner:
    """Run a graph in ONNX Runtime on the CPU.

    Args:
        graph: The ONNX file.
        threads: Threads of a pass.
        spinning: Whether threads spin while they wait, as ONNX Runtime does by itself: the shortest latency, and a
            processor that other programs lack.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> import onnx
        >>> from edgemin_hf.benchmark import OnnxRunner
        >>> code = "g (int64[1, N] input_ids) => (float[1, N] logits) {logits = Cast<to = 1>(input_ids)}"
        >>> graph = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {code}')
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(graph, f"{folder}/model.onnx")
        ...     runner = OnnxRunner(Path(folder, "model.onnx"), threads=1)
        >>> runner.run(runner.prepare({"input_ids": np.array([[2, 7, 3]])})).tolist()
        [[2.0, 7.0, 3.0]]
    """

    def __init__(self, graph: Path, threads: int, spinning: bool = True) -> None:
        self.graph = Graph(graph, threads, spinning=spinning)

    def prepare(self, inputs: Inputs) -> Prepared:
        """Turn inputs into what `run` takes, outside of the measured time."""
        return self.graph.feed(inputs)

    def run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Return what the head gives, (1, width) or (1, length, width)."""
        return self.graph.run(cast(Inputs, prepared))


class OpenVinoRunner:
    """Run a graph in OpenVINO on the CPU; needs the package openvino, which the extra `openvino` brings.

    Args:
        graph: An ONNX file, or an OpenVINO one (.xml) such as Optimum Intel's exporter writes.
        threads: Threads of a pass.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> import onnx
        >>> from edgemin_hf.benchmark import OpenVinoRunner
        >>> code = "g (int64[1, N] input_ids) => (float[1, N] logits) {logits = Cast<to = 1>(input_ids)}"
        >>> graph = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {code}')
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(graph, f"{folder}/model.onnx")
        ...     runner = OpenVinoRunner(Path(folder, "model.onnx"), threads=1)
        >>> runner.run(runner.prepare({"input_ids": np.array([[2, 7, 3]])})).tolist()
        [[2.0, 7.0, 3.0]]
    """

    def __init__(self, graph: Path, threads: int) -> None:
        self.graph = OpenVinoGraph(graph, threads)

    def prepare(self, inputs: Inputs) -> Prepared:
        """Turn inputs into what `run` takes, outside of the measured time."""
        return self.graph.feed(inputs)

    def run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Return what the head gives, (1, width) or (1, length, width)."""
        return self.graph.run(cast(Inputs, prepared))


def load_runner(
    runtime: str,
    file: Path,
    threads: int,
    auto_class: AutoClass = AutoModelForSequenceClassification,
    spinning: bool = True,
) -> Runner:
    """Load a model for running in its runtime.

    Args:
        runtime: "pytorch", "onnxruntime" or "openvino".
        file: Its file: the weights of a checkpoint, or a graph.
        threads: Threads of a pass.
        auto_class: As of `PyTorchRunner`.
        spinning: As of `OnnxRunner`; for what is no measurement of latency, False.

    Returns:
        The runner.

    Raises:
        ValueError: If there is no runner for the runtime.
    """
    if runtime == "pytorch":
        return PyTorchRunner(file.parent, threads, auto_class)
    if runtime == "onnxruntime":
        return OnnxRunner(file, threads, spinning)
    if runtime == "openvino":
        return OpenVinoRunner(file, threads)
    raise ValueError(f"runtime: {runtime}; allowed: pytorch, onnxruntime, openvino")
