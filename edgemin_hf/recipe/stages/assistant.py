"""The stage `assistant`: stage 1 for an assistant between teacher and student."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from transformers import PretrainedConfig, PreTrainedModel

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Work
from edgemin_hf.recipe.fingerprint import student_inputs
from edgemin_hf.recipe.schema import STRICT, Product, RecipeError, Student
from edgemin_hf.recipe.stages.distill import Distill, InnerDistillation


@dataclass(config=STRICT)
class Assistant(InnerDistillation):
    """Stage 1 for an assistant between teacher and student, of whom the stage `distill` then learns.

    Attributes:
        also: Further methods: each a mapping of `method`, its settings and `weight`.

    Example:
        >>> from edgemin_hf.recipe.stages import Assistant
        >>> Assistant(max_steps=1000).leaves
        (<Product.ASSISTANT: 'an assistant'>,)
    """

    stage: Literal["assistant"] = "assistant"
    needs: ClassVar[tuple[Product, ...]] = (Product.RAW_TEXT, Product.MODEL)
    leaves: ClassVar[tuple[Product, ...]] = (Product.ASSISTANT,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.ASSISTANT, Product.STUDENT)

    def shape(self, context: Context) -> Student:
        """Return the assistant's shape."""
        shape = context.recipe.assistant
        assert shape is not None  # noqa: S101 - `check`
        return shape

    def student(self, context: Context) -> PreTrainedModel:
        """Make the assistant from its teacher."""
        return context.new_student(self.shape(context), self.teacher(context), self.head(context))

    def compared(self, context: Context) -> tuple[PretrainedConfig, PretrainedConfig]:
        """Return the configurations of assistant and teacher."""
        return context.shapes.assistant or context.shapes.student, context.shapes.teacher

    def check(self, context: Context) -> None:
        """Check that somebody learns of it, and that the methods can compare it with the teacher."""
        if not any(isinstance(stage, Distill) for stage in context.recipe.stages):
            raise RecipeError("stages: assistant without distill; expected: with it, which learns of the assistant")
        super().check(context)

    def inputs(self, context: Context) -> dict[str, object]:
        """Return its shape, and the raw text."""
        return {"assistant": student_inputs(context, self.shape(context)), **super().inputs(context)}

    def work(self, context: Context) -> Work:
        """Return what the training runs. See `InnerDistillation.work`."""
        return replace(super().work(context), trained=self.compared(context)[0])
