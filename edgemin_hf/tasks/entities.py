"""Tags of entities: what IOB tags say, and how other schemes are read as them.

They are read as IOB2 strictly, as `seqeval` does in its mode "strict": B- begins an entity, I- of the same type goes on
with it, and any other I- belongs to none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

Scheme = Literal["iob2", "iob1", "iobes", "bilou"]
"""How tags tell where entities begin and end."""

OUTSIDE = "O"
"""The tag of a word that is in no entity."""

_PREFIXES = {"iob2": "BI", "iob1": "BI", "iobes": "BIES", "bilou": "BILU"}
_AS_IOB2 = {"B": "B", "I": "I", "E": "I", "L": "I", "S": "B", "U": "B"}
_TAG = re.compile(r"([A-Z])-(\S.*)")


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
            begins = scheme == "iob1" and not (found and _same_type(found[-1], tag))
            tag = f"{'B' if begins else _AS_IOB2[prefix]}-{kind}"
        found.append(tag)
    return found


def loose_tags(tags: Sequence[str]) -> int:
    """Count the tags of a sentence that go on with no entity: of each such I- and those after it, the first."""
    pairs = pairwise([OUTSIDE, *tags])
    return sum(tag.startswith("I-") and not _same_type(before, tag) for before, tag in pairs)


def _same_type(first: str, second: str) -> bool:
    return first != OUTSIDE and first[2:] == second[2:]


def tags_of(types: Iterable[str]) -> list[str]:
    """Return the tags of types of entities, in an order of their own: O, then B- and I- of each type by its name."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]


def inside(tag: str, labels: Mapping[str, int]) -> str:
    """Return the tag of a piece that goes on with a word: I- for B-, where that is a label."""
    going_on = f"I-{tag[2:]}"
    return going_on if tag.startswith("B-") and going_on in labels else tag
