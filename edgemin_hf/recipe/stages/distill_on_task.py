"""The stage `distill_on_task`: distillation of inner layers on the task's training texts."""

from __future__ import annotations

from typing import ClassVar, Literal

from datasets import Dataset
from pydantic.dataclasses import dataclass

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import TextSize
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.distill import InnerDistillation


@dataclass(config=STRICT)
class DistillOnTask(InnerDistillation):
    """Distillation of inner layers on the task's training texts, without their labels' loss.

    Attributes:
        also: Further methods: each a mapping of `method`, its settings and `weight`.

    Example:
        >>> from edgemin_hf.recipe.stages import DistillOnTask
        >>> DistillOnTask(num_train_epochs=5.0).needs
        (<Product.TASK: 'a task'>, <Product.MODEL: 'a teacher that is a model'>)
    """

    stage: Literal["distill_on_task"] = "distill_on_task"
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.MODEL)
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT, Product.TASK_STUDENT)

    def rows(self, context: Context) -> tuple[Dataset, Dataset]:
        """Return the rows that a student learns the task from."""
        return context.student_data

    def packed(self, context: Context) -> bool:
        """Return whether all examples have one length: never."""
        return False

    def inputs(self, context: Context) -> dict[str, object]:
        """Return nothing: it reads no raw text."""
        return {}

    def text_size(self, context: Context) -> TextSize:
        """Return the size of the task's training rows."""
        return context.estimator.task_text
