"""The stage `finetune`: the teacher learns the task."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from accelerate.utils import parse_flag_from_env
from pydantic import Field
from pydantic.dataclasses import dataclass
from transformers import PreTrainedModel, set_seed

from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.modeling.loading import load_reporting
from edgemin_hf.modeling.weights import is_head
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimate, Work
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.search.learning_rate import epochs_of_search, search_learning_rate
from edgemin_hf.recipe.stages.head_first import HeadFirst
from edgemin_hf.recipe.train import Parts
from edgemin_hf.recipe.training_arguments import check_rest
from edgemin_hf.training.wise_ft import WiseFT


@dataclass(config=STRICT)
class Finetune(HeadFirst):
    """Fine-tune the teacher on the task; without this stage it is used as it is.

    With `max_steps: 0` its head alone is fitted, on the frozen encoder.

    Attributes:
        tune: Whether a few learning rates, and more epochs, are tried, and the best model on the validation rows kept.
        wise_ft_alpha: Let the teacher end between the weights that training began with, its head fitted, and those that
            it came to: the share of the latter, above 0 and below 1. 0.5 is the advice of WiSE-FT (arXiv 2109.01903);
            None is fine-tuning as usual.

    Example:
        >>> from edgemin_hf.recipe.stages import Finetune
        >>> Finetune(num_train_epochs=4.0, learning_rate=5e-5).leaves
        (<Product.TEACHER: 'a fine-tuned teacher'>,)
    """

    stage: Literal["finetune"] = "finetune"
    tune: bool = False
    wise_ft_alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    own_folder: ClassVar[str] = "teacher"
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.MODEL)
    leaves: ClassVar[tuple[Product, ...]] = (Product.TEACHER,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.TEACHER, Product.ROWS, Product.ASSISTANT, Product.STUDENT)
    least_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.tune and self.max_steps != -1:
            raise ValueError(f"max_steps: {self.max_steps} beside tune: true; allowed: -1, since it tries epochs")
        if self.max_steps == 0 and not self.fit_head:
            raise ValueError("max_steps: 0 with fit_head: false; allowed: 1 or more, or fit_head: true")
        if self.wise_ft_alpha is not None and not (self.fit_head and self.max_steps):
            other = "fit_head: false" if self.max_steps else "max_steps: 0"
            raise ValueError(f"wise_ft_alpha: {self.wise_ft_alpha} with {other}; allowed: None")
        check_rest(Finetune, self)

    def settings(self) -> dict[str, object]:
        """Return its settings. See `Stage.settings`."""
        settings = super().settings()
        if self.wise_ft_alpha is None:
            del settings["wise_ft_alpha"]  # earlier versions had no such setting
        return settings

    def check(self, context: Context) -> None:
        """Check its arguments, that there are labels to learn, and that a model of two can be made."""
        if not context.task.learns_labels:
            raise ValueError(
                f"stage: finetune for {context.task.type}, which has no labels; allowed: without this stage"
            )
        if self.wise_ft_alpha is not None:
            told = f"wise_ft_alpha: {self.wise_ft_alpha}"
            if not context.task.fits_head:
                raise ValueError(f"{told} for {context.task.type}, whose head is not fitted alone; allowed: None")
            if parse_flag_from_env("ACCELERATE_USE_FSDP"):
                raise ValueError(f"{told} under FSDP, where no process has a whole model; allowed: None")
        super().check(context)

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Fine-tune, or try several ways to where that is asked for. See `Stage.run`."""
        if not self.tune:
            return super().run(context, folder, work)

        def train(learning_rate: float, num_train_epochs: float, model: Path, checkpoints: Path) -> Outcome:
            trial = replace(self, tune=False, learning_rate=learning_rate, num_train_epochs=num_train_epochs)
            gc.collect()  # the trainer of the trial before, which refers to itself in circles
            return trial.run(context, model, checkpoints)

        better = context.task.metrics[0].greater_is_better
        return search_learning_rate(self.learning_rate, self.num_train_epochs, train, folder, work, better)

    def estimate(self, context: Context) -> Estimate:
        """Return what all trials will cost here, if none stops early. See `TrainingStage.estimate`."""
        if not self.tune:
            return super().estimate(context)
        epochs = epochs_of_search(self.num_train_epochs)
        return replace(self, tune=False, num_train_epochs=epochs).estimate(context)

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of: hard labels alone, and no teacher."""
        train, validation = context.data
        set_seed(context.recipe.seed)
        # A head that the checkpoint brings for other labels is replaced.
        model, new = load_reporting(context.base_folder, context.head, ignore_mismatched_sizes=True, **context.labels)
        labels_alone = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0).with_label_loss(context.label_loss)
        metrics = partial(context.task.compute_metrics, rows=validation)
        tokenizer, task = context.teacher_tokenizer, context.task
        collator, callbacks = task.collation(tokenizer, context.recipe.seed) or (None, [])
        if self.wise_ft_alpha is not None:
            callbacks = [*callbacks, WiseFT(self.wise_ft_alpha)]
        parts = Parts(
            model,
            tokenizer,
            [labels_alone],
            train,
            validation,
            collator=collator,
            callbacks=callbacks,
            compute_metrics=metrics,
            condensed=task.condensed,
        )
        # Without steps the head is all that learns, also one that knows the labels, or others of as many.
        parts.head_is_new = self.max_steps == 0 or any(is_head(model, name) for name in new)
        return parts

    def work(self, context: Context) -> Work:
        """Return what the training runs: the teacher, on the task's texts."""
        return Work(context.shapes.teacher, context.estimator.task_text)
