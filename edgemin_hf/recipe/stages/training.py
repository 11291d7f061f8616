"""What the stages that train have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic.dataclasses import dataclass
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel

from edgemin_hf.distillation.base import DistillationConfig, Method
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.distillation.weighted import Weighted
from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.errors import prefix
from edgemin_hf.recipe.estimate import Estimate, TextSize, Work
from edgemin_hf.recipe.fingerprint import task_distillation_inputs
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product, RecipeError
from edgemin_hf.recipe.stages.base import Stage, student_before
from edgemin_hf.recipe.stages.methods import ParsedAlso
from edgemin_hf.recipe.train import Parts, make_trainer, train
from edgemin_hf.recipe.training_arguments import Training, check_training_arguments
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.labels import labels_of, numbers_in
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.training.trainer import DistillationTrainer


@dataclass(config=STRICT)
class TrainingStage(Stage, Training):
    """A stage that trains a model.

    Example:
        >>> from edgemin_hf.recipe.stages import STAGES, TrainingStage
        >>> [stage.stage for stage in STAGES if issubclass(stage, TrainingStage)]
        ['finetune', 'assistant', 'distill', 'distill_on_task', 'task_distill', 'prune', 'quantize']
    """

    every_process: ClassVar[bool] = True

    @abstractmethod
    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of; `model` stands instead of what the stage before left."""

    @abstractmethod
    def work(self, context: Context) -> Work:
        """Return what its training runs, for the estimate."""

    def check(self, context: Context) -> None:
        """Check its arguments."""
        check_training_arguments(context, self)

    def estimate(self, context: Context) -> Estimate:
        """Return what the training will cost here."""
        return context.estimator.training(self, self.work(context))

    def metric(self, context: Context) -> str:
        """Return what validation measures."""
        return context.task.metric_name

    def trainer(self, context: Context, work: Path, model: PreTrainedModel | None = None) -> DistillationTrainer:
        """Return its trainer, nothing trained or removed yet."""
        return make_trainer(context, self, work, self.parts(context, model))

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Train, from the last complete checkpoint if there is one. See `Stage.run`."""
        return train(self, self.trainer(context, work), folder, self.metric(context))


@dataclass(config=STRICT)
class TaskStage(TrainingStage, TaskDistillationConfig):
    """Settings of the stages that learn the task from the teacher's predictions and the labels.

    Attributes:
        also: Further methods, on the same data: each a mapping of `method`, its settings and `weight`.
    """

    also: list[ParsedAlso] = field(default_factory=list)
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT, Product.TASK_STUDENT)

    def check(self, context: Context) -> None:
        """Check that the teacher knows the task, and that the further methods can compare it with the student."""
        with prefix("teacher.predictions: " if context.recipe.teacher.predictions else ""):
            _check_teacher(context)
        if self.labels_alone and not context.task.learns_labels:
            raise ValueError(f"soft_weight: 0 for {context.task.type}, which has no labels; allowed: above 0")
        if context.task.ragged and self.soft_weight:
            context.shapes.check_tokens(f"{self.name}, of {context.task.type}")
        if self.runs_teacher(context) and context.maker(Product.VOCABULARY, before=self) is not None:
            told = "also:" if self.also else f"soft_weight: {self.soft_weight} for {context.task.type}"
            raise ValueError(
                f"{told} after the vocabulary was cut, whose tokens the teacher does not read; allowed: before"
            )
        if not self.also:
            check_training_arguments(context, self)
            return
        if not context.has_teacher:
            raise ValueError("also: beside teacher.predictions; allowed: a teacher.model, whose layers it compares")
        for method in self.also:
            if method.learns_labels and context.task.unlabelled_files:
                raise ValueError(
                    f"also: {method.method} beside task.unlabelled_files; allowed: a method without labels"
                )
        context.shapes.check_tokens(f"also of {self.name}")
        compared = context.shapes.student, context.shapes.teacher
        check_methods(self.also, *compared, context.recipe.task)
        check_training_arguments(context, self, self.also, compared, context.head)

    def inputs(self, context: Context) -> dict[str, object]:
        """Return what it learns from beside the teacher's model and the labelled rows."""
        return task_distillation_inputs(context)

    @property
    def labels_alone(self) -> bool:
        """Whether it learns nothing of a teacher, and so nothing of texts without labels."""
        return not self.soft_weight and not self.also

    def runs_teacher(self, context: Context) -> bool:
        """Return whether the teacher runs beside the student, for further methods or for the task's own losses."""
        return bool(self.also) or (context.task.teacher_beside and self.soft_weight > 0)

    def methods(self) -> list[DistillationConfig]:
        """Return what it trains for: its own losses, and the other methods with their weights."""
        return [self, *weighted(self.also)]

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of. See `TrainingStage.parts`."""
        model = model or self.student(context)
        rows = context.rows_of if self.labels_alone else context.rows_with_teacher_logits
        train_rows, validation = rows(self)
        tokenizer = context.student_tokenizer(self)
        teacher = context.load(context.teacher_folder) if self.runs_teacher(context) else None
        metrics = partial(context.task.compute_metrics, rows=validation)
        padding = None if self.labels_alone else context.collator(tokenizer)
        collator, callbacks = context.task.collation(tokenizer, context.recipe.seed) or (padding, [])
        return Parts(
            model,
            tokenizer,
            [self.with_label_loss(context.label_loss), *weighted(self.also)],
            train_rows,
            validation,
            teacher,
            collator=collator,
            callbacks=callbacks,
            compute_metrics=metrics,
            condensed=context.task.condensed,
            quantization=context.quantization(self),
        )

    def student(self, context: Context) -> PreTrainedModel:
        """Return what the stage before left of the student, or a new one."""
        return context.student(self) or context.new_task_student()

    def work(self, context: Context) -> Work:
        """Return what the training runs: beside the student its teacher, where that runs."""
        trained = self.reshaped(student_before(self, context))
        compared = context.shapes.teacher if self.runs_teacher(context) else None
        return Work(trained, self.text(context), compared)

    def text(self, context: Context) -> TextSize:
        """Return the size of the rows that it learns from."""
        return context.estimator.task_text if self.labels_alone else context.estimator.student_text


def weighted(others: Iterable[ParsedAlso]) -> list[DistillationConfig]:
    """Return the methods beside a stage's own, with their weights."""
    return [Weighted(other, other.weight) for other in others]


def check_methods(
    methods: Iterable[Method], student: PretrainedConfig, teacher: PretrainedConfig, task: Task | None
) -> None:
    """Check methods against two models' shapes and the task, and that the teacher has the head that they learn from.

    Raises:
        ValueError: If a method can't compare them, or not on the task.
    """
    for method in methods:
        method.check_shapes(shape_of(student), shape_of(teacher))
        if task is not None:
            method.check_task(task.problem_type or task.type)
        if method.teacher_head == "masked_lm" and not configured_for(teacher, AutoModelForMaskedLM):
            raise ValueError(
                f"method: {method.method} with a {', '.join(teacher.architectures or ['model'])} as teacher; "
                "allowed: a ...ForMaskedLM, whose masked-LM head it learns from"
            )


def _check_teacher(context: Context) -> None:
    """Check that the teacher, where it is not fine-tuned here, and those beside it are models for the task."""
    task, teacher, shapes = context.task, context.recipe.teacher, context.shapes
    if context.predictions is not None:
        context.predictions.check(task.train_table(context.root, context.recipe.seed))
        if task.unlabelled_files:
            context.predictions.check(task.unlabelled_table(context.root))
        return
    if teacher.ensemble and not task.learns_labels:
        raise RecipeError(f"teacher.ensemble: for {task.type}, whose vectors are each teacher's own; allowed: none")
    if teacher.ensemble and task.teacher_beside:
        raise RecipeError(f"teacher.ensemble: for {task.type}, whose teacher runs beside the student; allowed: none")
    for name, beside in zip(teacher.ensemble, shapes.ensemble, strict=True):
        _check_head(task, f"teacher.ensemble: {name}", beside, "")
        if task.compares_label_names:
            with prefix(f"teacher.ensemble: {name}, of "):
                numbers_in(labels_of(beside), context.label_ids)
    if context.maker(Product.TEACHER) is not None:
        return
    config = shapes.teacher
    _check_head(task, f"teacher.model: {teacher.model}", config, " without the stage finetune")
    with prefix("task: "):
        task.check_teacher(context.root, config)
    if isinstance(task, SentenceEmbedding):
        with prefix("task."):
            task.check_width(config, shapes.student.hidden_size)


def _check_head(task: Task, named: str, config: PretrainedConfig, when: str) -> None:
    """Check that a teacher has the task's head already."""
    if not configured_for(config, task.auto_class):
        head = task.type.replace("_", "-")
        raise RecipeError(f"{named}, which has no {head} head; allowed{when}: a model fine-tuned for it")
    if not task.compatible(config):
        raise RecipeError(
            f"{named}, which has {config.num_labels} label(s) and problem_type {config.problem_type}; allowed for "
            f"{task.metric_name}{when}: {task.problem_type}"
        )
