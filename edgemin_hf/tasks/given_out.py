"""What it costs to give vectors out shorter, or in fewer bits: a row for each width and precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgemin_hf.runtime.vectors import PRECISIONS, Vectors, vector_bytes
from edgemin_hf.tasks.metrics import Answers, Measurement
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class GivenOut(Record):
    """Vectors of one width and precision.

    Attributes:
        model: Which model gave them, as in `results.json`.
        dimensions: Their width: that of a prefix, or of the whole.
        precision: A key of `PRECISIONS`.
        bytes: Bytes of a vector.
        metric: Name of the metric.
        value: Its value on the test pairs.
        ci95: Both ends of its 95% interval.

    Example:
        >>> from edgemin_hf.tasks.given_out import GivenOut
        >>> GivenOut("student_onnxruntime_int8", 64, "bits", 8, "spearmanr", 0.78, (0.76, 0.8)).to_dict()["bytes"]
        8
    """

    model: str
    dimensions: int
    precision: str
    bytes: int
    metric: str
    value: float
    ci95: tuple[float, float]


def given_out(
    model: str,
    vectors: Vectors,
    widths: Sequence[int],
    references: Answers,
    measure: Callable[[Answers, Answers], Measurement],
) -> Iterable[GivenOut]:
    """Measure the vectors of pairs at each width and precision.

    Args:
        model: The model's name.
        vectors: Those of the texts of pairs in turn, (2 * pairs, width).
        widths: The prefixes, and the whole width.
        references: The scores of the pairs.
        measure: Measures cosines by these.

    Yields:
        A row each.
    """
    for width in widths:
        for precision, (_, pairing) in PRECISIONS.items():
            ones, others = vectors[::2, :width], vectors[1::2, :width]
            found = measure(references, pairing(ones, others).astype(np.float32))
            low, high = found["ci95"]
            size = vector_bytes(width, precision)
            yield GivenOut(model, width, precision, size, found["metric"], found["value"], (low, high))
