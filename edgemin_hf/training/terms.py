"""The named terms of a loss: their sum, their means over many batches, and whether they can train a model at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Terms = Mapping[str, Tensor | None]
"""Loss terms by name, each a mean over the rows of a batch; None where the batch lacks what it needs."""


def summed(terms: Terms) -> Tensor | None:
    """Return the loss: the sum of its terms, None where one is missing, since the others are another loss."""
    found = [term for term in terms.values() if term is not None]
    return torch.stack(found).sum() if found and len(found) == len(terms) else None


def lacking(terms: Terms) -> ValueError:
    """Return the error for rows that a loss can't be computed of."""
    names = ", ".join(name for name, term in terms.items() if term is None) or "any term"
    return ValueError(f"dataset: without what {names} takes; expected: labels, or the teacher's logits or a teacher")


class TermMeans:
    """Means of loss terms over the rows of many batches, of all processes."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, terms: Terms, rows: int) -> None:
        """Add the terms of a batch of so many rows."""
        for name, term in terms.items():
            if term is not None:
                total = torch.stack([rows * term.detach(), torch.full_like(term, rows)])
                self._totals[name] = total + self._totals[name].to(total) if name in self._totals else total

    def clear(self) -> None:
        """Forget all batches."""
        self._totals.clear()

    def totals(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return by each term's name its sum over all rows, and the rows, as a tensor (2,).

        Args:
            gather: Joins tensors of all processes along their first dimension.
        """
        return {name: gather(total).view(-1, 2).sum(0) for name, total in self._totals.items()}

    def take(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means, and forget all batches; as `totals` in all else."""
        totals = self.totals(gather)
        self.clear()
        return {name: (total / count).item() for name, (total, count) in totals.items()}

    def take_up(self, totals: Mapping[str, tuple[float, float]]) -> None:
        """Go on from what `totals` told before, in one of the processes."""
        self._totals = {name: torch.tensor(total) for name, total in totals.items()}


def check_gradients(terms: Terms, model: nn.Module, beside: nn.Module | None) -> None:
    """Check that each loss term gives a gradient to a parameter of the model.

    The graph of the terms is walked, nothing is computed.

    Args:
        terms: The terms, with their autograd history.
        model: The model.
        beside: What a method learns that is a part of the model only while it trains.

    Raises:
        ValueError: If a term does not.
    """
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    trained -= set() if beside is None else set(map(id, beside.parameters()))
    for name, term in terms.items():
        if term is not None and not _reaches(term, trained):
            raise ValueError(
                f"model: {name} gives no gradient to any of its parameters; expected: layers that are not frozen, and "
                "neither torch.no_grad nor reentrant checkpointing (use_reentrant: true) around them"
            )


def _reaches(term: Tensor, leaves: set[int]) -> bool:
    nodes, seen = [term.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in leaves:  # where a leaf's gradient is accumulated
            return True
        nodes += [following for following, _ in node.next_functions]
    return False
