"""What a stage tells when it has run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from edgemin_hf.export.manifest import Fidelity
from edgemin_hf.report.records import LayerSearch, ModuleError, TrainingCurve, Trial, VocabularyCut


@dataclass(frozen=True)
class Outcome:
    """What is worth remembering of a stage; what does not apply is left out. See `StageRecord`.

    Example:
        >>> from edgemin_hf.recipe import Outcome
        >>> Outcome(examples=320, notes=("12 words",)).told()
        {'examples': 320, 'notes': ('12 words',)}
    """

    examples: int | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    notes: tuple[str, ...] = ()
    curve: TrainingCurve | None = None
    search: LayerSearch | None = None
    trials: tuple[Trial, ...] | None = None
    precisions: Mapping[str, str] | None = None
    reconstruction: tuple[ModuleError, ...] | None = None
    vocabulary: VocabularyCut | None = None
    fidelity: dict[str, Fidelity] | None = None

    def told(self) -> dict[str, Any]:
        """Return what is told, by the names of a record's fields."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}
