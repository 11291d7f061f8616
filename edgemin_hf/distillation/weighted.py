"""A distillation method that counts more or less in a sum of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Self

from torch import Tensor

from edgemin_hf.distillation.base import DistillationConfig, Objective
from edgemin_hf.distillation.known import describe_method, described_method
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.utils.settings import Settings


@dataclass
class Weighted(Settings):
    """A method's settings and a weight for all its loss terms.

    `distillation_config=[TaskDistillationConfig(), Weighted(PKDConfig(), 0.5)]` trains for the weighted sum.

    Attributes:
        config: The method's settings.
        weight: What its terms are multiplied by.

    Example:
        >>> from edgemin_hf import PKDConfig, Weighted
        >>> Weighted(PKDConfig(), 0.5).to_dict()["config"]["method"]
        'pkd'
    """

    config: DistillationConfig
    weight: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < inf:
            raise ValueError(f"weight: {self.weight}; allowed: above 0")

    def to_dict(self) -> dict[str, object]:
        """Return the weight, the method's settings, and its name among them."""
        return {"method": "weighted", "config": describe_method(self.config), "weight": self.weight}

    @classmethod
    def from_dict(cls, settings: Mapping[str, object]) -> Self:
        """Make settings from a dictionary; raise what `Settings.from_dict` raises."""
        names = ("config", "weight")
        for name, value in settings.items():
            if name not in (*names, "method"):
                raise ValueError(f"{name}: {value}; allowed: {', '.join(names)}")
        config, weight = settings.get("config"), settings.get("weight")
        if not isinstance(config, Mapping) or not isinstance(weight, int | float):
            raise ValueError(f"config: {config}, weight: {weight}; expected a method's settings and a number")
        return cls(described_method(config), weight)

    def objective(self, student: Encoder, teacher: Encoder | None) -> Objective:
        """Build the objective for two models; raise what the method's own settings raise."""
        return _WeightedObjective(self.config.objective(student, teacher), self.weight)


class _WeightedObjective:
    def __init__(self, objective: Objective, weight: float) -> None:
        self.student_activations, self.teacher_activations = (
            objective.student_activations,
            objective.teacher_activations,
        )
        self.needs_student_logits = objective.needs_student_logits
        self.needs_teacher_logits = objective.needs_teacher_logits
        self.projections = objective.projections
        self._objective, self._weight = objective, weight

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor | None]:
        terms = self._objective(student, teacher, inputs)
        return {name: None if term is None else self._weight * term for name, term in terms.items()}
