"""Distillation methods as settings of a recipe: a stage's own, and others beside it."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from edgemin_hf.distillation.distilbert import DistilBERTConfig
from edgemin_hf.distillation.minilm import MiniLMConfig
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.distillation.mlkd import MLKDConfig, MLKDTaskConfig
from edgemin_hf.distillation.pkd import PKDConfig
from edgemin_hf.distillation.tinybert import TinyBERTConfig
from edgemin_hf.modeling.families import Shape

STRICT = ConfigDict(extra="forbid", strict=True)
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(config=STRICT)
class LayerSearch(MiniLMv2Config):
    """MiniLMv2, which may look for the teacher's layer by itself.

    Attributes:
        teacher_layer: The layer, or "search": tries several for a small budget and takes the one whose student then
            learns the task best.
        search_layers: The layers to try, counted from 1; None tries the upper half.
        search_steps: Steps of distillation, and then of task distillation, for each.
    """

    teacher_layer: int | Literal["search"] | None = None  # type: ignore[assignment]
    search_layers: list[int] | None = None
    search_steps: Count = 100

    def check(self, student: Shape, teacher: Shape) -> None:
        """Check these settings, and every layer to try, against two models' shapes."""
        if self.teacher_layer != "search":
            super().check(student, teacher)
            return
        for layer in self.layers_to_try(teacher.num_hidden_layers):
            try:
                self.at(layer).check(student, teacher)
            except ValueError as error:
                raise ValueError(str(error).replace("teacher_layer", "search_layers")) from None

    def layers_to_try(self, depth: int) -> list[int]:
        """Return the teacher's layers that a search tries, of a teacher of this depth."""
        return self.search_layers or list(range(depth // 2 + 1, depth + 1))

    def at(self, layer: int) -> LayerSearch:
        """Return these settings with the search done."""
        return replace(self, teacher_layer=layer)


METHODS: dict[str, type] = {
    "minilm": MiniLMConfig,
    "minilmv2": MiniLMv2Config,
    "distilbert": DistilBERTConfig,
    "tinybert": TinyBERTConfig,
    "pkd": PKDConfig,
    "mlkd": MLKDConfig,
    "mlkd_task": MLKDTaskConfig,
}
"""Names of the distillation methods, and their settings."""


@dataclass(config=STRICT)
class Also:
    """Another method, whose loss terms are added to those of a stage's own.

    Attributes:
        weight: What they are multiplied by.
    """

    weight: Positive = 1.0

    def __post_init__(self) -> None:
        check_rest(Also, self)


def check_rest(part: type, settings: object) -> None:
    """Run the next check after `part`: dataclasses call one `__post_init__`, settings are made of several."""
    check = getattr(super(part, settings), "__post_init__", None)
    if check is not None:
        check()


def with_method(base: type, name: str, config: type, **also_named: str) -> Any:
    """Build the settings of `base` with those of one method among them."""
    literals = {"method": name, **also_named}
    body: dict[str, Any] = {"__annotations__": {key: Literal[value] for key, value in literals.items()}, **literals}
    body |= {"__module__": __name__, "__doc__": base.__doc__}
    return dataclass(config=STRICT)(type(f"{base.__name__}_{name}", (base, config), body))


if TYPE_CHECKING:
    ParsedAlso = Also
else:
    _ALSO = [with_method(Also, name, config) for name, config in METHODS.items() if name != "distilbert"]
    ParsedAlso = Annotated[reduce(or_, _ALSO), Field(discriminator="method")]
