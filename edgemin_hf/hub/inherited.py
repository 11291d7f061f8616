"""What a student takes over of its teacher's card: licence, languages and datasets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from edgemin_hf.hub.identifiers import check_dataset, check_language, check_licence
from edgemin_hf.runtime.artefact import CARD


@dataclass(frozen=True)
class Inherited:
    """What a teacher's card tells that the student's may tell too; what the Hub would refuse is not among it.

    Attributes:
        licence: The licence's id on the Hub; None where the card has none that the Hub knows.
        licence_terms: `license_name` and `license_link` of the licence "other".
        languages: Codes of languages.
        datasets: Hub ids of datasets.
    """

    licence: str | None = None
    licence_terms: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()


def inherited_from(folder: str | Path) -> Inherited:
    """Read the card in a checkpoint's folder; without one, or of one that can't be read, nothing is told."""
    try:
        told: dict[str, Any] = metadata_load(Path(folder) / CARD) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return Inherited()
    licences = _known(told, "license", check_licence)
    terms = {name: str(told[name]) for name in ("license_name", "license_link") if told.get(name)}
    return Inherited(
        # Of several licences a choice would be ours, and is not ours to make.
        licence=licences[0] if len(licences) == 1 else None,
        licence_terms=terms if licences == ("other",) else {},
        languages=_known(told, "language", check_language),
        datasets=_known(told, "datasets", check_dataset),
    )


def _known(told: Mapping[str, Any], name: str, check: Callable[[str], None]) -> tuple[str, ...]:
    """Return the values under a name, one or a list, that the Hub takes."""
    value, found = told.get(name), []
    for one in value if isinstance(value, list) else [value]:
        try:
            if isinstance(one, str):
                check(one)
                found.append(one)
        except ValueError:
            continue
    return tuple(found)
