"""How SQuAD's own script scores an answer: exact match and the F1 of its words, at best over all references."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Return a text in lower case, without punctuation and articles, its words with a blank between them.

    Example:
        >>> from edgemin_hf.tasks.squad_score import normalized
        >>> normalized("The  U.S. Senate, in a vote")
        'us senate in vote'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 of an answer, each at best over the references.

    Without references "" alone is right, as in the script of v2.0; and so it is to those that have no words left.

    Example:
        >>> from edgemin_hf.tasks.squad_score import score
        >>> score("the Ruben Studdard", ["Kelly Clarkson", "Ruben Christopher Studdard"])
        (0.0, 0.8)
        >>> score("", []), score("June", [])
        ((1.0, 1.0), (0.0, 0.0))
    """
    truths = [words for text in references if (words := normalized(text))] or [""]
    found = normalized(prediction)
    return float(found in truths), max(_f1(found.split(), truth.split()) for truth in truths)


def _f1(found: list[str], truth: list[str]) -> float:
    if not found or not truth:
        return float(found == truth)
    common = (Counter(found) & Counter(truth)).total()
    return 2 * common / (len(found) + len(truth))
