"""Entities in tags (IOB and the like), counted by seqeval's rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from seqeval import scheme as schemes
from seqeval.metrics.sequence_labeling import get_entities

from edgemin_hf.tasks.metrics.counts import Counts

Scheme = Literal["IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU"]
Mode = Literal["strict"]
_Entity = tuple[str, int, int]


def counts_of_entities(
    references: Sequence[Sequence[str]],
    predictions: Sequence[Sequence[str]],
    scheme: Scheme | None = None,
    mode: Mode | None = None,
    suffix: bool = False,
) -> tuple[Counts, list[str]]:
    """Count each sentence's entities by type; a hit has the type, the first and the last word of a true one.

    Args:
        references: The true tags of each sentence.
        predictions: The predicted ones, as many.
        scheme: How tags make entities, where `mode` is "strict".
        mode: "strict" takes what the scheme allows alone; None is lenient as CoNLL's script: an I- may begin an entity.
        suffix: Whether the letter stands at the end of a tag.

    Returns:
        The counts (sentences, types), and the names of the types.

    Raises:
        ValueError: If a sentence has another number of predictions, or "strict" has no scheme.
    """
    if mode == "strict" and scheme is None:
        raise ValueError("mode: strict without scheme; expected: a scheme such as IOB2")
    for sentence, (true, found) in enumerate(zip(references, predictions, strict=True), start=1):
        if len(true) != len(found):
            raise ValueError(f"sentence {sentence}: {len(true)} tags, and {len(found)} predicted; expected: as many")
    truth = [_entities(tags, scheme, mode, suffix) for tags in references]
    given = [_entities(tags, scheme, mode, suffix) for tags in predictions]
    types = sorted({entity[0] for sentence in (*truth, *given) for entity in sentence})
    hits = [true & found for true, found in zip(truth, given, strict=True)]
    return Counts(*(_counted(sentences, types) for sentences in (truth, given, hits))), types


def _entities(tags: Sequence[str], scheme: Scheme | None, mode: Mode | None, suffix: bool) -> set[_Entity]:
    if mode == "strict":
        (found,) = schemes.Entities([list(tags)], getattr(schemes, str(scheme)), suffix).entities
        return {(entity.tag, entity.start, entity.end) for entity in found}
    return set(get_entities(list(tags), suffix))


def _counted(sentences: Sequence[set[_Entity]], types: Sequence[str]) -> csr_array:
    columns = {name: column for column, name in enumerate(types)}
    places = [(row, columns[entity[0]]) for row, sentence in enumerate(sentences) for entity in sentence]
    rows, found = np.array(places, dtype=int).reshape(-1, 2).T
    return csr_array((np.ones(len(rows)), (rows, found)), shape=(len(sentences), len(types)))
