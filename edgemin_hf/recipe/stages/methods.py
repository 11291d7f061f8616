"""Distillation methods as settings of a recipe: a stage's own, and others beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.known import METHODS
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.modeling.families import Shape
from edgemin_hf.recipe.schema import STRICT, Count, Positive
from edgemin_hf.recipe.training_arguments import check_rest


@dataclass(config=STRICT)
class LayerSearch(MiniLMv2Config):
    """MiniLMv2, which may look for the teacher's layer by itself.

    Attributes:
        teacher_layer: The layer, counted from 1; None is the last. "search" tries several for a small budget and takes
            the one whose student then learns the task best.
        search_layers: The layers to try, counted from 1; None tries the upper half.
        search_steps: Steps of distillation, and then of task distillation, for each.
    """

    teacher_layer: int | Literal["search"] | None = None  # type: ignore[assignment]
    search_layers: list[int] | None = None
    search_steps: Count = 100

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings, and every layer to try, against two models' shapes."""
        if self.teacher_layer != "search":
            super().check_shapes(student, teacher)
            return
        for layer in self.layers_to_try(teacher.num_hidden_layers):
            try:
                self.at(layer).check_shapes(student, teacher)
            except ValueError as error:
                raise ValueError(str(error).replace("teacher_layer", "search_layers")) from None

    def layers_to_try(self, depth: int) -> list[int]:
        """Return the teacher's layers that a search tries, of a teacher of this depth."""
        return self.search_layers or list(range(depth // 2 + 1, depth + 1))

    def at(self, layer: int) -> Self:
        """Return these settings with the search done."""
        return replace(self, teacher_layer=layer)


SETTINGS_OF_METHODS: dict[str, type] = METHODS | {LayerSearch.method: LayerSearch}
"""The settings of each method in a recipe's stage."""


@dataclass(config=STRICT)
class Also:
    """Another method, whose loss terms are added to those of a stage's own.

    Attributes:
        weight: What its loss is multiplied by.
    """

    weight: Positive = 1.0

    def __post_init__(self) -> None:
        check_rest(Also, self)


def with_method(base: type, config: type[Method], **also_named: str) -> Any:
    """Build the settings of `base` with those of one method among them."""
    literals = {"method": config.method, **also_named}
    body: dict[str, object] = {"__annotations__": {key: Literal[value] for key, value in literals.items()}, **literals}
    body |= {"__module__": __name__, "__doc__": base.__doc__}
    return dataclass(config=STRICT)(type(f"{base.__name__}_{config.method}", (base, config), body))


if TYPE_CHECKING:

    class ParsedAlso(Also, Method):
        """A method beside a stage's own."""

else:
    # A masked-LM head can't stand beside another.
    _ALSO = [with_method(Also, config) for config in METHODS.values() if config.teacher_head is None]
    ParsedAlso = Annotated[reduce(or_, _ALSO), Field(discriminator="method")]
