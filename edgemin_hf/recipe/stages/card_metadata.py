"""What the card's metadata tells of where a model comes from: by the recipe, else by the card of its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemin_hf.hub.inherited import inherited_from
from edgemin_hf.recipe.context import Context


@dataclass(frozen=True)
class CardMetadata:
    """What the card's metadata tells of where a model comes from; see `CardFacts`."""

    base_model: str | None
    languages: Sequence[str]
    licence: str
    licence_terms: Mapping[str, str]
    datasets: Sequence[str]
    teacher_datasets: Sequence[str]


def card_metadata(
    context: Context, language: str | None, licence: str | None, datasets: Sequence[str] | None
) -> CardMetadata:
    """Return what a recipe tells and, where it tells nothing, what the card of its teacher does.

    Without a teacher that is a model, the checkpoint that the student began as stands for it. A folder of this machine
    is no base model.

    Args:
        context: The recipe at work.
        language: The recipe's language; None takes the card's.
        licence: Likewise; "unknown" where no one tells.
        datasets: Likewise.
    """
    teacher, student = context.recipe.teacher, context.recipe.student
    base, revision = (teacher.model, teacher.revision) if teacher.model else (student.checkpoint, student.revision)
    assert base is not None  # noqa: S101 - the recipe's check
    found = context.shapes.checkpoint(base, revision, weights=False)
    told = inherited_from(found.path)
    return CardMetadata(
        base_model=None if found.is_folder else base,
        languages=told.languages if language is None else [language],
        licence=licence or told.licence or "unknown",
        licence_terms=told.licence_terms if licence is None else {},
        datasets=datasets or [],
        teacher_datasets=told.datasets if datasets is None else [],
    )
