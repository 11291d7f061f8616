"""A teacher's vectors on their principal directions: the narrower space in which they keep most of what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgemin_hf.distillation.token_outputs import TokenOutputs, new_file
from edgemin_hf.utils.atomic_files import write_atomic

_ROWS = 65_536


def principal_directions(vectors: Tensor, count: int) -> Tensor:
    """Return the orthonormal directions that hold the most of vectors' squared lengths.

    The eigenvectors of V^T V with the largest eigenvalues. By Eckart and Young (1936) no other projection of as many
    dimensions leaves so little error in all inner products V V^T together, and the first d of them are the best d:
    cosines survive, and prefixes stand alone. The mean is left in, since cosines are taken from the origin.

    Args:
        vectors: V, (rows, width), of any floating-point dtype.
        count: How many directions, at most `width`.

    Returns:
        They, (width, count), float32, by falling eigenvalue; each one's largest entry is positive.

    Raises:
        ValueError: If there are not as many.

    Example:
        >>> import torch
        >>> from edgemin_hf.distillation.principal import principal_directions
        >>> principal_directions(torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), 1).tolist()
        [[1.0], [0.0]]
    """
    width = vectors.shape[1]
    if not 1 <= count <= width:
        raise ValueError(f"directions: {count}; allowed: 1 to {width}, the vectors' width")
    gram = torch.zeros(width, width, dtype=torch.float64)
    for rows in _chunks(vectors):
        gram += rows.T @ rows
    directions = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return (directions * largest.sign()).float()


def on_directions(vectors: Tensor, directions: Tensor, *, normalized: bool) -> Tensor:
    """Return vectors by their parts along directions, as long as 1 if they are to be.

    Args:
        vectors: (rows, width).
        directions: (width, count).
        normalized: Whether vectors have length 1.

    Returns:
        (rows, count), float64.
    """
    parts = vectors.double() @ directions.double()
    return torch.nn.functional.normalize(parts, dim=1) if normalized else parts


def cached_principal_outputs(
    outputs: TokenOutputs, learned: int, count: int, path: Path, key: str, *, normalized: bool
) -> TokenOutputs:
    """Return a teacher's vectors on their principal directions, from disk where they were computed before.

    Args:
        outputs: The vectors, one a row.
        learned: How many of the rows, the first ones, the directions are those of.
        count: How many directions.
        path: The .npy file (rows, count), float16; a file beside it keeps the key.
        key: What the vectors depend on.
        normalized: Whether they have length 1.

    Returns:
        They, one a row.
    """
    told, key = path.with_suffix(".key"), f"{key} {learned} {count} {normalized}"
    if not (path.is_file() and told.is_file() and told.read_text(encoding="utf-8") == key):
        told.unlink(missing_ok=True)
        vectors = torch.from_numpy(np.load(outputs.files[0], mmap_mode="c"))  # nothing is written into it
        directions = principal_directions(vectors[:learned], count)
        partial = path.with_name(f".{path.name}.partial")
        flat = new_file(partial, np.float16, (len(vectors), count))
        for start in range(0, len(vectors), _ROWS):
            rows = slice(start, start + _ROWS)
            flat[rows] = on_directions(vectors[rows], directions, normalized=normalized).numpy()
        flat.flush()
        partial.replace(path)
        write_atomic(told, key)
    return TokenOutputs([path], outputs.lengths.tolist())


def _chunks(vectors: Tensor) -> Iterator[Tensor]:
    """Yield the vectors in float64, some of which are in memory at a time."""
    return (rows.double() for rows in vectors.split(_ROWS))
