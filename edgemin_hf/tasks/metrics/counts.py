"""Precision, recall and F1 of classes, from three counts: how often each is true, is found, and is both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from edgemin_hf.tasks.metrics.base import Arrays, Statistic, Values, total

Average = Literal["binary", "micro", "macro", "weighted", "samples"]
AVERAGES: tuple[Average, ...] = ("binary", "micro", "macro", "weighted", "samples")
Part = Literal["precision", "recall", "f1"]


class Counts(NamedTuple):
    """How often each class is true, is found, and is both: of examples (examples, classes), or sums (..., classes)."""

    truth: Any
    found: Any
    hits: Any

    def total(self, weights: Values) -> Counts:
        """Sum those of examples that count so many times, (resamples, examples) -> (resamples, classes)."""
        return Counts(*(total(part, weights) for part in self))

    def part(self, name: Part) -> Values:
        """Return the precision, recall or F1 of sums; 0 where nothing is true or found."""
        if name == "f1":
            return _ratio(2 * self.hits, self.truth + self.found)
        return _ratio(self.hits, self.found if name == "precision" else self.truth)


def counts_of(references: Arrays, predictions: Arrays) -> tuple[Counts, list[int]]:
    """Count each example's classes.

    Args:
        references: Numbers of labels (examples,), or 0 and 1 (examples, labels).
        predictions: Likewise.

    Returns:
        The counts, and the number of each class that they have a column of: those that occur, of label sets all.
    """
    truth, found = np.asarray(references), np.asarray(predictions)
    if truth.ndim == 2:
        hits = truth * found
        return Counts(*(csr_array(part.astype(float)) for part in (truth, found, hits))), list(range(truth.shape[1]))
    classes, columns = np.unique(np.concatenate([truth, found]), return_inverse=True)
    rows, (true, given) = np.arange(len(truth)), np.split(columns, 2)
    shape, same = (len(truth), len(classes)), true == given
    parts = ((rows, true), (rows, given), (rows[same], true[same]))
    return Counts(*(csr_array((np.ones(len(c)), (r, c)), shape=shape) for r, c in parts)), classes.tolist()


def average_of(name: Part, references: Arrays, predictions: Arrays, average: Average, pos_label: int) -> Statistic:
    """Return what tells a mean of the classes' precision, recall or F1, each as scikit-learn defines it.

    Args:
        name: Which.
        references: As of `counts_of`.
        predictions: Likewise.
        average: "binary" takes the class `pos_label` alone, "micro" counts all decisions together, "macro" is the mean
            over classes that occur (of label sets over all), "weighted" that by how often each is true, "samples" the
            mean over examples of their own, of label sets.
        pos_label: Number of that class.
    """
    if isinstance(pos_label, str):
        raise ValueError(f"pos_label: {pos_label!r}; expected: the number of the label")
    counts, classes = counts_of(references, predictions)
    every = np.ndim(references) == 2
    own = Counts(*(part.sum(axis=1) for part in counts)).part(name) if average == "samples" else None

    def value(weights: Values) -> Values:
        if own is not None:
            return _ratio(weights @ own, weights.sum(axis=1))
        sums = counts.total(weights)
        if average == "binary":
            return sums.part(name)[:, classes.index(pos_label)] if pos_label in classes else np.zeros(len(weights))
        if average == "micro":
            return Counts(*(part.sum(axis=1) for part in sums)).part(name)
        each = sums.part(name)
        shares = sums.truth if average == "weighted" else (sums.truth + sums.found > 0) | every
        return _ratio((each * shares).sum(axis=1), shares.sum(axis=1))

    return value


def rows_of(counts: Counts, names: Sequence[str]) -> list[dict[str, str | float | int]]:
    """Return each class's name, precision, recall, F1 and support (how often it is true)."""
    one = np.ones((1, counts.truth.shape[0]))
    sums = counts.total(one)
    parts = {name: sums.part(name)[0].tolist() for name in ("precision", "recall", "f1")}
    supports = sums.truth[0].astype(int).tolist()
    return [
        {"name": name, **{part: values[index] for part, values in parts.items()}, "support": supports[index]}
        for index, name in enumerate(names)
    ]


def _ratio(part: Values, whole: Values) -> Values:
    """Divide counts, none of which lies between 0 and 1."""
    values: Values = part / np.where(whole == 0, 1, whole)
    return values
