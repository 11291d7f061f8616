"""Embedding tables in two factors: narrow tables and one projection, as ALBERT and ELECTRA store them.

A text's embedding is the sum of a row of each table: word, position, type. All that LayerNorm leaves of a sum is its
direction without the mean of its values, so tables are cut to the directions in which sums differ most, and laid so
that narrow sums have mean 0. LayerNorm then does to a narrow sum what it did to the wide one: the projection alone
brings back its width, its gain and its bias, and the only error is what the directions that were cut held.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_EVEN_SHARE = 0.1
"""Share of a table's weight that is spread evenly over its rows: what no text used so far is still stored roughly."""


def factorize(
    tables: Mapping[str, Tensor], width: int, counts: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """Cut embedding tables, whose rows are summed and normalised, to fewer dimensions.

    With H the old width, h the new one, C the projection that takes the mean of a row's values away, Q (H, h - 1) the
    first eigenvectors of the mean of all sums' C x x^T C, and J (h, h - 1) orthonormal columns of mean 0, a table E
    becomes E' = E C Q J^T. Where the sums x span no more than h - 1 dimensions without their means, for the rows x' of
    the new tables

        (x - mean) / std = W (x' - mean') / std'    with W = sqrt(H / h) Q J^T

    Args:
        tables: The tables (rows, H) by name.
        width: h, from 2 to H.
        counts: How often each row of a table is used (rows,), by name; without it all are used alike.

    Returns:
        The tables (rows, h) by name, and W (H, h).
    """
    old = next(iter(tables.values())).shape[1]
    centred = {name: _without_mean(table.double()) for name, table in tables.items()}
    # Rows of the tables meet by chance: covariances add up, and so do means.
    moment = torch.zeros(old, old, dtype=torch.double, device=next(iter(centred.values())).device)
    mean = torch.zeros_like(moment[0])
    for name, rows in centred.items():
        shares = _shares(len(rows), counts.get(name)).to(rows)
        own = shares @ rows
        moment += (rows - own).T @ (shares[:, None] * (rows - own))
        mean += own
    moment += torch.outer(mean, mean)
    axes = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, : width - 1]
    turned = axes @ mean_free_axes(width).to(axes).T
    return {name: rows @ turned for name, rows in centred.items()}, (old / width) ** 0.5 * turned


def mean_free_axes(width: int) -> Tensor:
    """Return orthonormal columns (width, width - 1), float64, each of mean 0."""
    # A reflection that takes the last unit vector to the direction of the mean, and the others across it.
    normal = torch.full((width,), -(width**-0.5), dtype=torch.float64)
    normal[-1] += 1
    across = torch.eye(width, dtype=torch.float64)
    if width > 1:
        across -= 2 * torch.outer(normal, normal) / normal.dot(normal)
    return across[:, : width - 1]


def _without_mean(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def _shares(rows: int, counts: Tensor | None) -> Tensor:
    even = torch.full((rows,), 1 / rows, dtype=torch.double)
    if counts is None or not counts.sum():
        return even
    used = counts.double().cpu()
    return (1 - _EVEN_SHARE) * used / used.sum() + _EVEN_SHARE * even
