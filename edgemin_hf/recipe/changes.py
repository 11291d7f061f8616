"""Which single settings are other than they were, in the words of a recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""A SHA-256, of which a few digits say enough."""


def changes(before: Mapping[str, object], now: Mapping[str, object], place: str = "") -> list[str]:
    """Return a "key: old -> new" for each setting that is another one now, by its dotted key.

    Args:
        before: Settings as a record has them.
        now: Settings, which may hold what JSON writes as another type, such as tuples.
        place: What stands before the keys, such as "prune.".

    Example:
        >>> from edgemin_hf.recipe.changes import changes
        >>> before, now = ({"max_steps": 10, "pruning": {"scope": scope}} for scope in ("layer", "model"))
        >>> changes(before, now, "quantize.")
        ['quantize.pruning.scope: layer -> model']
    """
    return list(_changes(before, json.loads(json.dumps(now)), place))


def _changes(before: Mapping[str, object], now: Mapping[str, object], place: str) -> Iterator[str]:
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{place}{name}.")
        elif old != new:
            yield f"{place}{name}: {_written(old)} -> {_written(new)}"


def _written(value: object) -> str:
    if value is None:
        return "none"
    return _HASH.sub(r"\1...", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
