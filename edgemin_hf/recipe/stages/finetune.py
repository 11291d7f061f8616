"""The stage `finetune`: the teacher learns the task."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel, set_seed

from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.modeling.loading import load_reporting
from edgemin_hf.modeling.weights import is_head
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Work
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.head_first import HeadFirst
from edgemin_hf.recipe.train import Parts


@dataclass(config=STRICT)
class Finetune(HeadFirst):
    """Fine-tune the teacher on the task; without this stage it is used as it is.

    Example:
        >>> from edgemin_hf.recipe.stages import Finetune
        >>> Finetune(num_train_epochs=4.0, learning_rate=5e-5).leaves
        (<Product.TEACHER: 'a fine-tuned teacher'>,)
    """

    stage: Literal["finetune"] = "finetune"
    own_folder: ClassVar[str] = "teacher"
    leaves: ClassVar[tuple[Product, ...]] = (Product.TEACHER,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.TEACHER, Product.ROWS, Product.ASSISTANT, Product.STUDENT)

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of: hard labels alone, and no teacher."""
        train, validation = context.data
        set_seed(context.recipe.seed)
        # A head that the checkpoint brings for other labels is replaced.
        model, new = load_reporting(context.base_folder, context.head, ignore_mismatched_sizes=True, **context.labels)
        labels_alone = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)
        metrics = context.task.compute_metrics
        parts = Parts(model, context.tokenizer, [labels_alone], train, validation, compute_metrics=metrics)
        parts.head_is_new = any(is_head(model, name) for name in new)
        return parts

    def work(self, context: Context) -> Work:
        """Return what the training runs: the teacher, on the task's texts."""
        return Work(context.shapes.teacher, context.estimator.task_text)
