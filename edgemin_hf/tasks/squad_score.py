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


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 where an answer is one of the references, else 0.0.

    Without references "" alone is right, as in the script of v2.0; and so it is to those that have no words left.

    Example:
        >>> from edgemin_hf.tasks.squad_score import exact_match
        >>> exact_match("the Broncos", ["Denver Broncos", "Broncos"]), exact_match("", [])
        (1.0, 1.0)
    """
    return float(normalized(prediction) in _truths(references))


def f1(prediction: str, references: Sequence[str]) -> float:
    """Return the F1 of an answer's words, at best over the references; as of `exact_match` without references.

    Example:
        >>> from edgemin_hf.tasks.squad_score import f1
        >>> f1("the Ruben Studdard", ["Kelly Clarkson", "Ruben Christopher Studdard"])
        0.8
    """
    found = normalized(prediction).split()
    return max(_f1(found, truth.split()) for truth in _truths(references))


def _truths(references: Sequence[str]) -> list[str]:
    return [words for text in references if (words := normalized(text))] or [""]


def _f1(found: list[str], truth: list[str]) -> float:
    if not found or not truth:
        return float(found == truth)
    common = (Counter(found) & Counter(truth)).total()
    return 2 * common / (len(found) + len(truth))
