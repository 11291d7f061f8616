"""The stage `finetune`: the teacher learns the task."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel, set_seed

from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.modeling.head_fitting import fit_head, frozen_features
from edgemin_hf.modeling.loading import load_reporting
from edgemin_hf.modeling.weights import is_head
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Work
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Positive, Product
from edgemin_hf.recipe.stages.training import TrainingStage
from edgemin_hf.recipe.train import Parts, drawn, make_trainer, train

_FITTED_ROWS = 20_000
"""Rows, at most, that the head is fitted on: its features lie in memory, and more tell a linear layer little."""


@dataclass(config=STRICT)
class Finetune(TrainingStage):
    """Fine-tune the teacher on the task; without this stage it is used as it is.

    Attributes:
        fit_head: Whether its last layer is first fitted on the frozen encoder's features (LP-FT, arXiv 2202.10054),
            where the checkpoint brings no head for the task.
        head_learning_rate: Learning rate of the head; None takes that of the encoder.

    Example:
        >>> from edgemin_hf.recipe.stages import Finetune
        >>> Finetune(num_train_epochs=4.0, learning_rate=5e-5).leaves
        (<Product.TEACHER: 'a fine-tuned teacher'>,)
    """

    stage: Literal["finetune"] = "finetune"
    fit_head: bool = True
    head_learning_rate: Positive | None = None
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
        parts = Parts(model, [labels_alone], train, validation, compute_metrics=context.task.compute_metrics)
        parts.head_learning_rate = self.head_learning_rate
        parts.head_is_new = any(is_head(model, name) for name in new)
        return parts

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Fit the head, then train. See `Stage.run`."""
        parts = self.parts(context)
        trainer = make_trainer(context, self, work, parts)

        def prepare(resumed: bool) -> Outcome:
            if resumed or not (self.fit_head and parts.head_is_new):
                return Outcome()
            rows = (drawn(rows, _FITTED_ROWS, context.recipe.seed) for rows in context.data)
            train, validation = (frozen_features(trainer.model, trainer.batches_of(some)) for some in rows)
            fit_head(trainer.model, train, validation, context.task.hard_loss)
            value = trainer.evaluate()[f"eval_{context.task.metric}"]
            return Outcome(
                notes=(f"its head fitted on the frozen encoder: validation {context.task.metric} {value:.4f}",)
            )

        return train(self, trainer, folder, self.metric(context), prepare=prepare)

    def work(self, context: Context) -> Work:
        """Return what the training runs: the teacher, on the task's texts."""
        return Work(context.shapes.teacher, context.estimator.task_text)
