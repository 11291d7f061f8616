"""How well vectors find texts: against judgements (nDCG), and against another model's own ranking (recall)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.vectors import Vectors
from edgemin_hf.tasks.metrics.ranking import normalised_gain

Judgements = Mapping[str, Mapping[str, float]]
"""How relevant texts are to a query, by its id and theirs; what is not named is not relevant."""
_QUERIES = 256


def ranked(queries: Vectors, corpus: Vectors, count: int) -> NDArray[np.int64]:
    """Return the rows of the corpus that are nearest to each query by cosine, the nearest first.

    Args:
        queries: (queries, width).
        corpus: (texts, width).
        count: How many; fewer where the corpus is smaller.

    Returns:
        int64 (queries, count); of equal cosines the first row of the corpus comes first.
    """
    count = min(count, len(corpus))
    texts = _unit(corpus)
    found = np.empty((len(queries), count), dtype=np.int64)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        distances = -(_unit(queries[part]) @ texts.T)
        last = np.partition(distances, count - 1, axis=1)[:, count - 1]
        for query, (row, most) in enumerate(zip(distances, last, strict=True), start=start):
            near = np.flatnonzero(row <= most)  # more than `count` where several are as near as the last
            found[query] = near[np.argsort(row[near], kind="stable")[:count]]
    return found


def recall_of(found: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return, for each query, which share of the texts that another model ranks first is found.

    Args:
        found: Rows of the corpus (queries, k).
        wanted: The other model's (queries, k).

    Returns:
        (queries,), from 0 to 1.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.retrieval import recall_of
        >>> recall_of(np.array([[0, 1], [4, 5]]), np.array([[1, 0], [5, 6]])).tolist()
        [1.0, 0.5]
    """
    shares = [np.isin(theirs, ours).mean() for ours, theirs in zip(found, wanted, strict=True)]
    return np.array(shares, dtype=np.float64)


def ndcg(
    found: NDArray[np.int64], queries: Sequence[str], corpus: Sequence[str], judgements: Judgements
) -> NDArray[np.float64]:
    """Return each query's normalised discounted cumulative gain. See `normalised_gain`.

    Args:
        found: Rows of the corpus that were found, the best first, (queries, k).
        queries: Id of each query.
        corpus: Id of each row of the corpus.
        judgements: The judgements, with a relevant text for each query.

    Returns:
        (queries,), from 0 to 1.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.tasks.retrieval import ndcg
        >>> judged = {"q": {"b": 1.0}}
        >>> ndcg(np.array([[1, 0]]), ["q"], ["a", "b"], judged), ndcg(np.array([[0, 1]]), ["q"], ["a", "b"], judged)
        (array([1.]), array([0.63092975]))
    """
    values = []
    for rows, query in zip(found, queries, strict=True):
        relevant = judgements[query]
        gains = [relevant.get(corpus[row], 0.0) for row in rows]
        values.append(normalised_gain(gains, list(relevant.values())))
    return np.array(values)


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = vectors / np.where(lengths == 0, 1, lengths)
    return found
