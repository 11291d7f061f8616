"""The fine-tuned teacher in OpenVINO with weights and activations of 8 bits, calibrated on training texts.

Where a processor's sums of 8 bits saturate, its weights have 7, by NNCF's own fix for that. Needs the extra
`openvino` (OpenVINO and NNCF, whose quantiser Optimum Intel's `OVQuantizer` calls).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemin_hf.benchmark.runners import OpenVinoRunner
from edgemin_hf.benchmark.whole_call import WholeCall
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.graphs import TOKENIZER, made_of_call
from edgemin_hf.runtime.sessions import integer_products_saturate

_CALIBRATED = 300
"""Training texts, evenly spaced, that ranges are taken from: as many as NNCF takes by itself."""


def openvino(given: Given, folder: Path) -> list[Made]:
    """Quantise the teacher's float graph as Optimum Intel's `OVQuantizationConfig` does by default.

    But where this processor's sums of 8-bit products saturate: there its weights have 7 bits, as NNCF advises.
    """
    import nncf
    from openvino import Core, save_model

    assert given.teacher is not None  # noqa: S101 - it is made after the export alone
    graph = given.teacher / FP32_GRAPH
    tokenizer = graph.with_name(TOKENIZER)
    plain = WholeCall(OpenVinoRunner(graph, threads=1), tokenizer, given.task.max_length)
    rows = np.linspace(0, len(given.train) - 1, min(_CALIBRATED, len(given.train))).round().astype(int)
    feeds = [plain.runner.prepare(plain.inputs(given.train[row])) for row in rows]
    overflow = nncf.OverflowFix.ENABLE if integer_products_saturate() else nncf.OverflowFix.DISABLE
    quantized = nncf.quantize(
        Core().read_model(graph),
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    save_model(quantized, folder / "model.xml", compress_to_fp16=False)
    size = sum((folder / file).stat().st_size for file in ("model.xml", "model.bin")) + tokenizer.stat().st_size
    call = WholeCall(OpenVinoRunner(folder / "model.xml", threads=1), tokenizer, given.task.max_length)
    return [made_of_call("fine-tuned teacher in OpenVINO, INT8", call, size, given)]
