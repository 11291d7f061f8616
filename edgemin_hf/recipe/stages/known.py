"""The stages that there are, and a recipe of them as it is read: a new one is a file, and a place in `STAGES`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator, Tag
from pydantic.dataclasses import dataclass

from edgemin_hf.distillation.base import Method
from edgemin_hf.recipe.keys import DEFAULT_METHOD
from edgemin_hf.recipe.order import check_order
from edgemin_hf.recipe.schema import STRICT, Product, Recipe
from edgemin_hf.recipe.stages.assistant import Assistant
from edgemin_hf.recipe.stages.augment import Augment
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.recipe.stages.benchmark import Benchmark
from edgemin_hf.recipe.stages.distill import Distill, InnerDistillation
from edgemin_hf.recipe.stages.distill_on_task import DistillOnTask
from edgemin_hf.recipe.stages.evaluate import Evaluate
from edgemin_hf.recipe.stages.export import Export
from edgemin_hf.recipe.stages.finetune import Finetune
from edgemin_hf.recipe.stages.methods import SETTINGS_OF_METHODS, with_method
from edgemin_hf.recipe.stages.prune import Prune
from edgemin_hf.recipe.stages.prune_vocabulary import PruneVocabulary
from edgemin_hf.recipe.stages.push import Push
from edgemin_hf.recipe.stages.quantize import Quantize
from edgemin_hf.recipe.stages.report import Report
from edgemin_hf.recipe.stages.rivals import Rivals
from edgemin_hf.recipe.stages.task_distill import TaskDistill

STAGES: tuple[type[Stage], ...] = (
    Finetune, Augment, Assistant, Distill, DistillOnTask, TaskDistill, Prune, Quantize, PruneVocabulary, Export,
    Evaluate, Benchmark, Rivals, Report, Push,
)  # fmt: skip
"""The stages, in the order in which a recipe may have them."""


def _can_use(stage: type[Stage], method: type[Method]) -> bool:
    """Return whether a stage of inner distillation has what a method needs.

    Raw text has no labels, its students have no head of a task, and one that learns on the task's texts gets that head.
    """
    if Product.RAW_TEXT in stage.needs:
        return not (method.learns_labels or method.compares_outputs)
    return method.teacher_head is None


def _settings() -> dict[str, type[Stage]]:
    found: dict[str, type[Stage]] = {}
    for stage in STAGES:
        if not issubclass(stage, InnerDistillation):
            found[str(stage.stage)] = stage
            continue
        for name, method in SETTINGS_OF_METHODS.items():
            if _can_use(stage, method):
                found[f"{stage.stage}:{name}"] = with_method(stage, method, stage=stage.stage)
    return found


SETTINGS: dict[str, type[Stage]] = _settings()
"""The settings of every stage, by `tag_of`."""


def tag_of(stage: object) -> str | None:
    """Return what tells a stage's settings from others': its name, and its method where it has a choice."""
    name, method = (_read(stage, field) for field in ("stage", "method"))
    chooses = any(known.startswith(f"{name}:") for known in SETTINGS)
    return f"{name}:{method or DEFAULT_METHOD}" if chooses else name


def _read(stage: object, name: str) -> str | None:
    found = stage.get(name) if isinstance(stage, Mapping) else getattr(stage, name, None)
    return None if found is None else str(found)


if TYPE_CHECKING:
    ParsedStage = Stage
else:
    _TAGGED = [Annotated[kind, Tag(tag)] for tag, kind in SETTINGS.items()]
    ParsedStage = Annotated[reduce(or_, _TAGGED), Discriminator(tag_of)]


@dataclass(config=STRICT)
class ParsedRecipe(Recipe):
    """A recipe with all stages that there are."""

    stages: list[ParsedStage]

    def __post_init__(self) -> None:
        given = {Product.RAW_TEXT: self.raw_text, Product.TASK: self.task, Product.MODEL: self.teacher.model}
        check_order(self.stages, [product for product, part in given.items() if part is not None], STAGES)
        if self.teacher.model is None and self.student.checkpoint is None:
            raise ValueError(
                "student.checkpoint: None beside teacher.predictions; expected: a model to start from, since there is "
                "no teacher to take after"
            )
        makes_assistant = any(Product.ASSISTANT in stage.leaves for stage in self.stages)
        if makes_assistant != (self.assistant is not None):
            raise ValueError(
                f"assistant: {self.assistant}; expected: a shape where there is a stage assistant, else none"
            )
