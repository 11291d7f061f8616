"""Entities: what IOB tags say, and how many of them were found.

An entity is found where its type and both of its ends are right, and counts once (CoNLL-2002). The tags are read as
IOB2 strictly, as `seqeval` does in its mode "strict": B- begins an entity, I- of the same type goes on with it, and any
other I- belongs to none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scheme = Literal["iob2", "iob1", "iobes", "bilou"]
"""How tags tell where entities begin and end."""

OUTSIDE = "O"
"""The tag of a word that is in no entity."""

_PREFIXES = {"iob2": "BI", "iob1": "BI", "iobes": "BIES", "bilou": "BILU"}
_AS_IOB2 = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}
_TAG = re.compile(r"([A-Z])-(\S.*)")


class Entity(NamedTuple):
    """An entity of a sentence.

    Attributes:
        type: What it is.
        start: The number of its first word.
        end: The number of the word after its last.
    """

    type: str
    start: int
    end: int


def check_tag(tag: str, scheme: Scheme) -> None:
    """Check that a tag is one of a scheme's; ValueError where not."""
    match = _TAG.fullmatch(tag)
    if tag != OUTSIDE and not (match and match[1] in _PREFIXES[scheme]):
        allowed = ", ".join(f"{prefix}-TYPE" for prefix in _PREFIXES[scheme])
        raise ValueError(f"tag {tag!r}; allowed with scheme {scheme}: {OUTSIDE}, {allowed}")


def as_iob2(tags: Sequence[str], scheme: Scheme) -> list[str]:
    """Return a sentence's tags in IOB2; they were checked.

    Example:
        >>> from edgemin_hf.tasks.entities import as_iob2
        >>> as_iob2(["I-LOC", "I-LOC", "B-LOC", "O"], "iob1"), as_iob2(["S-LOC", "B-PER", "E-PER"], "iobes")
        (['B-LOC', 'I-LOC', 'B-LOC', 'O'], ['B-LOC', 'B-PER', 'I-PER'])
    """
    if scheme == "iob2":
        return list(tags)
    found: list[str] = []
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        if tag != OUTSIDE:
            begins = scheme == "iob1" and not _goes_on(found, kind)
            tag = f"{'B' if begins else _AS_IOB2[prefix]}-{kind}"
        found.append(tag)
    return found


def loose_tags(tags: Sequence[str]) -> int:
    """Count the tags of a sentence that go on with no entity: of each such I- and those after it, the first."""
    return sum(tag.startswith("I-") and not _goes_on(tags[:number], tag[2:]) for number, tag in enumerate(tags))


def _goes_on(before: Sequence[str], kind: str) -> bool:
    """Return whether the tag before is of the same type."""
    return bool(before) and before[-1][2:] == kind


def entities(tags: Iterable[str]) -> list[Entity]:
    """Return the entities of a sentence.

    Example:
        >>> from edgemin_hf.tasks.entities import entities
        >>> entities(["B-LOC", "I-LOC", "I-PER", "B-LOC"])
        [Entity(type='LOC', start=0, end=2), Entity(type='LOC', start=3, end=4)]
    """
    found: list[Entity] = []
    goes_on = False
    for number, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "B":
            found.append(Entity(kind, number, number + 1))
        elif prefix == "I" and goes_on and found[-1].type == kind:
            found[-1] = found[-1]._replace(end=number + 1)
        else:
            goes_on = False
            continue
        goes_on = True
    return found


def entity_counts(
    references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the entities of each sentence.

    Args:
        references: The true tags of each sentence.
        predictions: Those that were predicted.

    Returns:
        How many there are (sentences, 1); how many were predicted, and how many of these are right (sentences, 2).
    """
    pairs = [(set(entities(true)), set(entities(said))) for true, said in zip(references, predictions, strict=True)]
    there = np.array([[len(true)] for true, _ in pairs], dtype=np.int64).reshape(-1, 1)
    found = np.array([[len(said), len(true & said)] for true, said in pairs], dtype=np.int64).reshape(-1, 2)
    return there, found


def entity_f1(there: NDArray[np.generic], found: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute F1 from the counts of sentences: (..., sentences, 1) and (..., sentences, 2) -> (...)."""
    true, (said, right) = there.sum(axis=-2)[..., 0], np.moveaxis(found.sum(axis=-2), -1, 0)
    values: NDArray[np.float64] = 2 * right / np.maximum(true + said, 1)
    return values


def tags_of(types: Iterable[str]) -> list[str]:
    """Return the tags of types of entities, in an order of their own: O, then B- and I- of each type by its name."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]


def inside(tag: str, labels: Mapping[str, int]) -> str:
    """Return the tag of a piece that goes on with a word: I- for B-, where that is a label."""
    going_on = f"I-{tag[2:]}"
    return going_on if tag.startswith("B-") and going_on in labels else tag
