"""The stage `finetune`: the teacher learns the task."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from accelerate.utils import parse_flag_from_env
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
from edgemin_hf.training.weight_averaging import WeightAveraging


@dataclass(config=STRICT)
class Finetune(HeadFirst):
    """Fine-tune the teacher on the task; without this stage it is used as it is.

    With `max_steps: 0` its head alone is fitted, on the frozen encoder.

    Attributes:
        tune: Whether a few learning rates, and more epochs, are tried, and the best model on the validation rows kept.
        average_weights: Whether the teacher has the mean of the weights of all steps (SWA, arXiv 1803.05407), which
            goes with `training_arguments: {lr_scheduler_type: constant_with_warmup}`; not beside `best_model`.

    Example:
        >>> from edgemin_hf.recipe.stages import Finetune
        >>> Finetune(num_train_epochs=4.0, learning_rate=5e-5).leaves
        (<Product.TEACHER: 'a fine-tuned teacher'>,)
    """

    stage: Literal["finetune"] = "finetune"
    tune: bool = False
    average_weights: bool = False
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
        for name, refused in (("max_steps", 0), ("fit_head", False), ("best_model", True)):
            if self.average_weights and getattr(self, name) == refused:
                raise ValueError(f"average_weights: true with {name}: {json.dumps(refused)}; allowed: false")
        check_rest(Finetune, self)

    def settings(self) -> dict[str, object]:
        """Return its settings. See `Stage.settings`."""
        settings = super().settings()
        if not self.average_weights:
            del settings["average_weights"]  # earlier versions had no such setting
        return settings

    def check(self, context: Context) -> None:
        """Check its arguments, that there are labels to learn, and that weights that are to be averaged can be."""
        if not context.task.learns_labels:
            raise ValueError(
                f"stage: finetune for {context.task.type}, which has no labels; allowed: without this stage"
            )
        if self.average_weights and not context.task.fits_head:
            raise ValueError(
                f"average_weights: true for {context.task.type}, whose head is not fitted first; allowed: false"
            )
        if self.average_weights and parse_flag_from_env("ACCELERATE_USE_FSDP"):
            raise ValueError("average_weights: true under FSDP, where no process has a whole model; allowed: false")
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
        if self.average_weights:
            callbacks = [*callbacks, WeightAveraging()]
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
