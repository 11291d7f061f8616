"""The stage `task_distill`: stage 2, the student learns the task from the teacher's predictions and the labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.head_first import HeadFirst
from edgemin_hf.recipe.stages.training import TaskStage
from edgemin_hf.recipe.train import Parts


@dataclass(config=STRICT)
class TaskDistill(HeadFirst, TaskStage):
    """Stage 2: distillation of the student on the task.

    Example:
        >>> from edgemin_hf.recipe.stages import TaskDistill
        >>> TaskDistill(soft_weight=0.9, hard_weight=0.1).temperature
        2.0
    """

    stage: Literal["task_distill"] = "task_distill"
    hub_tag: ClassVar[str | None] = "distillation"
    not_after: ClassVar[tuple[Product, ...]] = (Product.QUANTIZED, Product.VOCABULARY, Product.GRAPHS)

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of. See `TrainingStage.parts`."""
        parts = super().parts(context, model)
        parts.head_is_new = context.task.learns_labels and context.maker(Product.TASK_STUDENT, before=self) is None
        return parts
