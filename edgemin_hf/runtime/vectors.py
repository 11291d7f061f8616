"""Sentence vectors as they are given out: cut to a prefix, as float32, int8 or bits; and the cosines of pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""(texts, width), float32."""


def as_int8(vectors: Vectors) -> NDArray[np.int8]:
    """Return vectors as int8, each by its largest value: x -> round(127 x / max |x|).

    A cosine is the same whatever vectors are multiplied with, so no scale goes with them.
    """
    largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    found: NDArray[np.int8] = np.rint(127 * (vectors / largest)).astype(np.int8)
    return found


def as_bits(vectors: Vectors) -> NDArray[np.uint8]:
    """Return the signs of vectors, eight in a byte, the first in its highest bit: uint8 (texts, width / 8, up).

    1 stands for a value above 0. FAISS, and sentence-transformers' "ubinary", have them so.
    """
    return np.packbits(vectors > 0, axis=1)


def cosines(ones: NDArray[np.generic], others: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the cosine of each vector with the one in the same row of the others, float64 (rows,); 0 of zeros."""
    left, right = ones.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: NDArray[np.float64] = (left * right).sum(axis=1) / np.where(lengths == 0, 1, lengths)
    return found


def cosines_of_bits(ones: NDArray[np.uint8], others: NDArray[np.uint8], width: int) -> NDArray[np.float64]:
    """Return the cosines of vectors of signs: 1 - 2 h / width, where h is how many bits differ (Hamming)."""
    found: NDArray[np.float64] = 1 - 2 * np.unpackbits(ones ^ others, axis=1).sum(axis=1, dtype=np.int64) / width
    return found


Pairing = Callable[[Vectors, Vectors], NDArray[np.float64]]

PRECISIONS: dict[str, tuple[float, Pairing]] = {
    "float32": (4, cosines),
    "int8": (1, lambda ones, others: cosines(as_int8(ones), as_int8(others))),
    "bits": (1 / 8, lambda ones, others: cosines_of_bits(as_bits(ones), as_bits(others), ones.shape[1])),
}
"""Bytes of a value, and what makes the cosines of pairs, by the name of each precision."""


def vector_bytes(width: int, precision: str) -> int:
    """Return the bytes of a vector.

    Example:
        >>> from edgemin_hf.runtime.vectors import vector_bytes
        >>> [vector_bytes(256, precision) for precision in ("float32", "int8", "bits")]
        [1024, 256, 32]
    """
    return int(np.ceil(width * PRECISIONS[precision][0]))
