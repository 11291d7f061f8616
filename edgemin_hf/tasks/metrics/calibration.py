"""Whether a classifier's probabilities are what they say: how often a label of 80% is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from edgemin_hf.utils.records import Record

BINS = 15


@dataclass(frozen=True)
class Bin(Record):
    """Examples whose labels have about the same probability.

    Attributes:
        confidence: The mean of their labels' probabilities.
        accuracy: The share of them that is right.
        n: How many they are.
    """

    confidence: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Calibration(Record):
    """How well probabilities tell how often they are right.

    Attributes:
        ece: The expected calibration error: the mean distance of a bin's confidence from its accuracy, weighted by its
            examples.
        confidence: The mean probability of the labels that are given.
        accuracy: The share of them that is right.
        bins: The bins, the least confidence first.
    """

    ece: float
    confidence: float
    accuracy: float
    bins: tuple[Bin, ...]


def calibration(logits: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS) -> Calibration:
    """Measure the calibration of the label that a classifier gives: its likeliest one.

    The bins are of equal mass: the examples, sorted by the probability of their label, are parted into bins of as many
    examples each, but for one (Nguyen and O'Connor 2015, arXiv 1508.05154). Bins of equal width (Guo et al. 2017) put
    most of a good classifier's examples into the last one.

    Args:
        logits: A classifier's outputs (examples, labels).
        labels: The numbers of the true labels (examples,).
        bins: How many; fewer where there are fewer examples.

    Returns:
        The calibration.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.metrics.calibration import calibration
        >>> logits = np.log(np.array([[0.8, 0.2]] * 10))  # 80% sure, and right 6 times of 10
        >>> found = calibration(logits, np.array([0] * 6 + [1] * 4), bins=1)
        >>> round(found.ece, 3), round(found.confidence, 3), found.accuracy
        (0.2, 0.8, 0.6)
    """
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1)
    given = probabilities.argmax(axis=1)
    confidence, hits = probabilities.max(axis=1), given == labels
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    made = [Bin(float(confidence[part].mean()), float(hits[part].mean()), len(part)) for part in parts]
    ece = sum(one.n * abs(one.confidence - one.accuracy) for one in made) / len(order)
    return Calibration(ece, float(confidence.mean()), float(hits.mean()), tuple(made))
