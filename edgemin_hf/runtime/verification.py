"""The check that a runtime computes what the artefact's maker computed, on the texts of its manifest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.artefact import FIRST, MANIFEST
from edgemin_hf.runtime.model import Model

LIMITS = {"fp32": 1e-3}
"""Of a precision: by how much a text's outputs may differ, a mean over them as a share of their mean size."""
QUANTIZED_LIMIT = 0.1
"""Of all others: values that lie on the edge of a grid fall to the other side on other processors."""
LONGEST = 128
"""Tokens after which the manifest's texts were cut."""


def limit_of(precision: str) -> float:
    """Return the largest difference that is allowed of a graph's precision."""
    return LIMITS.get(precision, QUANTIZED_LIMIT)


def relative_difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the mean absolute difference of a text's outputs over their mean absolute value; inf where it is none.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.runtime.verification import relative_difference
        >>> expected = np.array([1.0, 3.0])
        >>> relative_difference(np.array([1.0, 3.5]), expected), relative_difference(expected * np.nan, expected)
        (0.125, inf)
    """
    difference = float(np.abs(found - expected).mean() / max(float(np.abs(expected).mean()), 1e-12))
    return difference if np.isfinite(difference) else np.inf


class VerificationError(RuntimeError):
    """A graph that does not compute what it should here: one line."""


def verify(model: Model) -> float:
    """Run the manifest's texts, one at a time, and compare what the graph gives with what it should give.

    Args:
        model: A loaded model.

    Returns:
        The largest difference of a text: the mean absolute difference of its outputs over their mean absolute value.

    Raises:
        VerificationError: If it is above 0.001 of a graph in fp32, above 0.1 of a quantised one, or no number.
        ValueError: If the manifest holds no expected outputs.

    Example:
        >>> from edgemin_hf.runtime.verification import LIMITS, QUANTIZED_LIMIT
        >>> LIMITS["fp32"], QUANTIZED_LIMIT
        (0.001, 0.1)
    """
    file = model.file
    if len(file.outputs) != len(model.artefact.texts) or not file.outputs:
        raise ValueError(f"{model.artefact.folder / MANIFEST}: no outputs of {file.file} to compare with")
    reader = model.reader_for(min(LONGEST, model.artefact.longest_text))
    worst = 0.0
    for text, expected in zip(model.artefact.texts, file.outputs, strict=True):
        found, wanted = model.output(reader.read(text)), np.array(expected)
        if found.ndim > 1:
            found = found[:, :FIRST]
        if found.shape != wanted.shape:
            told = f"outputs {found.shape} of {text[:40]!r}, expected {wanted.shape}"
            raise VerificationError(f"{file.file}: {told}: the tokenizer or the graph is another one")
        worst = max(worst, relative_difference(found, wanted))
    limit = limit_of(file.precision)
    if worst > limit:
        raise VerificationError(
            f"{file.file}: outputs differ from those of {MANIFEST} by {worst:.2g} of their size, of {limit:g} allowed: "
            "this machine does not compute what the model learned"
        )
    return worst
