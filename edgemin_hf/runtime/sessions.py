"""Sessions of ONNX Runtime whose integer products are exact on every processor."""

from __future__ import annotations

from base64 import b64decode
from functools import lru_cache

import numpy as np
import onnxruntime

EXACT_PRODUCTS = "session.x64quantprecision"
"""ONNX Runtime's option: products of uint8 by int8 are computed as uint8 by uint8, which no kernel saturates."""

_PRODUCT = b64decode(
    "CAU6lAEKGAoBeAoBdxIBeSINTWF0TXVsSW50ZWdlchIBZypLCAQIEBADQgF3SkB/f39/f39/f39/f39/f39/f39/f39/f39/f39/"
    "f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/f39/WhMKAXgSDgoMCAISCAoCCAIKAggEYhMKAXkSDgoMCAYSCAoCCAIK"
    "AggQQgQKABAK"
)
"""An ONNX model: x, uint8 (2, 4), times int8 (4, 16) of 127; as text, for the runtime has no package that makes one."""


def session_options(threads: int | None = None) -> onnxruntime.SessionOptions:
    """Return options for a session that computes the same wherever it runs.

    x86 processors without VNNI add two neighbouring products of uint8 inputs and int8 weights in int16, which
    saturates. There ONNX Runtime is asked for exact sums, which take longer; weights of 7 bits (`reduce_range`) can't
    saturate, and stay as fast.

    Args:
        threads: Threads of a pass; None leaves it to ONNX Runtime.
    """
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if integer_products_saturate():
        options.add_session_config_entry(EXACT_PRODUCTS, "1")
    return options


@lru_cache
def integer_products_saturate() -> bool:
    """Ask ONNX Runtime for a product that this processor's kernels saturate, or not."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    largest = np.full((2, 4), 255, dtype=np.uint8)
    return bool((session.run(None, {"x": largest})[0] != 4 * 255 * 127).any())
