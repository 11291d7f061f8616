"""The order of a recipe's stages, by what each needs and leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgemin_hf.recipe.schema import Product, StageSettings

_FIELDS = {
    Product.RAW_TEXT: ("raw_text", "files or dataset"),
    Product.TASK: ("task", "files and columns"),
    Product.MODEL: ("teacher.model", "a Hub id or a folder"),
}
"""What a recipe itself gives: the field, and what is to stand there."""
_OWN_FOLDERS = {"stages": "the records", "work": "the checkpoints", "cache": "the teacher's logits", "rows": "the rows"}
"""Folders of a run that belong to no stage, and what they hold."""


def check_order(
    stages: Sequence[StageSettings], given: Iterable[Product], known: Iterable[type[StageSettings]]
) -> None:
    """Check the order of a recipe's stages.

    Args:
        stages: The stages.
        given: What the recipe itself gives.
        known: All stages that there are, to say which one leaves what is missing.

    Raises:
        ValueError: If something that a stage needs is missing, or it comes too late, or two have one name.
    """
    if not stages:
        raise ValueError("stages: none; expected: at least one")
    left: dict[Product, str] = dict.fromkeys(given, "the recipe")
    names: set[str] = set()
    folders = {**_OWN_FOLDERS}
    for index, stage in enumerate(stages):
        if stage.name in names:
            raise ValueError(f"stages: {stage.name} twice; expected: a name of its own for the second (name: ...)")
        if stage.folder in folders:
            raise ValueError(
                f"stages: {stage.name}, whose folder would be that of {folders[stage.folder]}; expected: another name"
            )
        for product in stage.needs:
            if product not in left:
                raise ValueError(_missing(stage, product, known))
        for product in stage.not_after:
            if product in left:
                raise ValueError(
                    f"stages: {stage.name} in place {index + 1}; allowed: before {left[product]}, which leaves "
                    f"{product}"
                )
        names.add(stage.name)
        folders[stage.folder] = stage.name
        for product in stage.leaves:
            left.setdefault(product, stage.name)


def _missing(stage: StageSettings, product: Product, known: Iterable[type[StageSettings]]) -> str:
    if product in _FIELDS:
        name, expected = _FIELDS[product]
        return f"{name}: missing; expected: {expected}, since stage {stage.name} learns of it"
    makers = list(dict.fromkeys(str(other.stage) for other in known if product in other.leaves))
    return f"stages: {stage.name} needs {product}; expected before it: {' or '.join(makers)}"
