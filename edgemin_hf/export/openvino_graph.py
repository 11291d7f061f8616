"""A graph in OpenVINO: what `edgemin_hf.runtime.graph` is to ONNX Runtime. Needs the package openvino."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.graph import Arrays, graph_feed, joined, wanted


class OpenVinoGraph:
    """A graph that is ready to run on the CPU.

    Float operations run in float32, as in the other runtimes: by itself OpenVINO takes bfloat16 where the CPU has it,
    and rounds what weights of 4 bits are multiplied with to int8.

    Args:
        file: An ONNX file, or an OpenVINO one (.xml).
        threads: Threads of a pass.

    Attributes:
        request: OpenVINO's inference request.
    """

    def __init__(self, file: Path, threads: int = 1) -> None:
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
        self.request = compiled.create_infer_request()
        self._names = [node.get_any_name() for node in compiled.inputs]
        self._outputs = wanted([node.get_any_name() for node in compiled.outputs])

    def feed(self, inputs: Arrays) -> dict[str, NDArray[np.int64]]:
        """Return what `run` takes, of a tokenizer's arrays."""
        return graph_feed(self._names, inputs)

    def run(self, feed: Arrays) -> NDArray[np.float32]:
        """Return what the head gives, float32 (batch, width) or (batch, length, width)."""
        found = self.request.infer(feed, share_inputs=True)
        return joined([found[name] for name in self._outputs])
