"""Texts that answer a question, compared with those that are right as SQuAD's official scripts compare them.

Rajpurkar et al. 2016 (arXiv 1606.05250) and 2018 (1806.03822): case, punctuation, articles and spaces do not count;
F1 is that of words; of several right answers the best counts.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from datasets import Sequence as Listed
from datasets import Value

from edgemin_hf.tasks.metrics.base import Values

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


RIGHT = {"id": Value("string"), "answers": Listed({"text": Value("string"), "answer_start": Value("int32")})}
"""What SQuAD's metrics are told of a question: its name, and all right answers."""
FOUND = {"id": Value("string"), "prediction_text": Value("string")}
"""What they are told of a prediction."""


def normalized(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, with one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(found: str, right: str) -> float:
    """Return whether two texts are the same."""
    return float(normalized(found) == normalized(right))


def f1_of_words(found: str, right: str) -> float:
    """Return the harmonic mean of precision and recall of the words; 0 where they share none."""
    ours, theirs = normalized(found).split(), normalized(right).split()
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


def best_of(
    compare: Callable[[str, str], float], references: Sequence[Sequence[str]], predictions: Sequence[str]
) -> Values:
    """Compare each prediction with the texts that are right, and return the best of each, float64 (examples,)."""
    pairs = zip(predictions, references, strict=True)
    return np.array([max((compare(found, text) for text in right), default=0.0) for found, right in pairs])
