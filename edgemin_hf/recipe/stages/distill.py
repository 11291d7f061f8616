"""The stage `distill`: stage 1, task-agnostic distillation on raw text; and what other such stages share."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import ClassVar, Literal

from datasets import Dataset
from pydantic.dataclasses import dataclass
from transformers import AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel, default_data_collator
from transformers.trainer_utils import SaveStrategy

from edgemin_hf.data.corpus import TokenBlocks
from edgemin_hf.data.masked_lm import load_masked_lm
from edgemin_hf.distillation.base import DistillationConfig, Method
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import TextSize, Work
from edgemin_hf.recipe.fingerprint import raw_text_inputs
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product, Student
from edgemin_hf.recipe.search.teacher_layer import search_teacher_layer
from edgemin_hf.recipe.stages.base import student_before
from edgemin_hf.recipe.stages.methods import LayerSearch, ParsedAlso
from edgemin_hf.recipe.stages.task_distill import TaskDistill
from edgemin_hf.recipe.stages.training import TrainingStage, check_methods, weighted
from edgemin_hf.recipe.train import Parts, train
from edgemin_hf.recipe.training_arguments import check_training_arguments


@dataclass(config=STRICT)
class InnerDistillation(TrainingStage, Method):
    """Distillation of inner layers, by one of `METHODS`, whose settings are this stage's too.

    Attributes:
        also: Further methods: each a mapping of `method`, its settings and `weight`.
    """

    also: list[ParsedAlso] = field(default_factory=list)
    hub_tag: ClassVar[str | None] = "distillation"
    not_after: ClassVar[tuple[Product, ...]] = (Product.QUANTIZED, Product.VOCABULARY, Product.GRAPHS)

    def metric(self, context: Context) -> str:
        """Return what validation measures: the loss, since no labels are read."""
        return "loss"

    def head(self, context: Context) -> AutoClass:
        """Return the class of models that teacher and student are."""
        masked_lm: AutoClass = AutoModelForMaskedLM
        return masked_lm if self.teacher_head == "masked_lm" else context.head

    def methods(self) -> list[DistillationConfig]:
        """Return what it trains for: its own method, and the others with their weights."""
        return [self, *weighted(self.also)]

    def shape(self, context: Context) -> Student:
        """Return the shape of the student, where no stage before left one."""
        return context.recipe.student

    def teacher(self, context: Context) -> PreTrainedModel:
        """Load the teacher: the fine-tuned one, or for a masked-LM head that no task asks for the recipe's own."""
        if self.head(context) is AutoModelForMaskedLM:
            return load_masked_lm(
                context.teacher_folder if context.head is AutoModelForMaskedLM else context.base_folder
            )
        return context.load(context.teacher_folder, self.head(context))

    def student(self, context: Context) -> PreTrainedModel:
        """Load what the stages before left of the student, or make it from its teacher."""
        head = self.head(context)
        student = context.student(self, head)
        return student or context.new_student(self.shape(context), self.teacher(context), head)

    def rows(self, context: Context) -> tuple[Dataset | TokenBlocks, Dataset | TokenBlocks]:
        """Return training and validation examples."""
        return context.raw_text

    def packed(self, context: Context) -> bool:
        """Return whether all examples have one length."""
        return context.packs

    def parts(self, context: Context, model: PreTrainedModel | None = None) -> Parts:
        """Return what its trainer is made of. See `TrainingStage.parts`."""
        model, teacher = model or self.student(context), self.teacher(context)
        train_rows, validation = self.rows(context)
        packed = self.packed(context)
        parts = Parts(model, context.tokenizer, self.methods(), train_rows, validation, teacher, packed=packed)
        collation = self.collation(context.tokenizer, context.recipe.seed)
        if collation is not None:
            parts.collator, parts.callbacks = collation
        elif packed:
            parts.collator = default_data_collator
        return parts

    def check(self, context: Context) -> None:
        """Check that the methods can compare the two models."""
        if self.searches:
            raise ValueError("teacher_layer: search; allowed: a number; search in the stage distill beside a task")
        self.check_compared(context, self)
        self.collation(context.shapes.tokenizer, context.recipe.seed)

    def check_compared(self, context: Context, method: Method) -> None:
        """Check that a method and those beside it can compare the two models, with the training's arguments."""
        context.shapes.check_tokens(self.name)
        methods, models = [method, *self.also], self.compared(context)
        if context.recipe.task is None or self.head(context) is not context.head:
            for one in methods:
                if one.compares_outputs:
                    raise ValueError(
                        f"also: {one.method} of models without a task's head; allowed: beside a task, and methods of "
                        "any head"
                    )
        check_methods(methods, *models, context.recipe.task)
        check_training_arguments(context, self, methods, models, self.head(context))

    def compared(self, context: Context) -> tuple[PretrainedConfig, PretrainedConfig]:
        """Return the configurations of student and teacher."""
        return context.shapes.student, context.shapes.teacher

    def work(self, context: Context) -> Work:
        """Return what the training runs: the teacher no further than it is read."""
        read = self.teacher_layer if isinstance(self, MiniLMv2Config) else None
        return Work(
            student_before(self, context),
            self.text_size(context),
            self.compared(context)[1],
            teacher_layers=read if isinstance(read, int) else None,
        )

    def text_size(self, context: Context) -> TextSize:
        """Return the size of the text that it reads."""
        return context.estimator.raw_text

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the raw text, by its content."""
        return raw_text_inputs(context)

    @property
    def searches(self) -> bool:
        """Whether the teacher's layer is to be searched for."""
        return isinstance(self, LayerSearch) and self.teacher_layer == "search"


@dataclass(config=STRICT)
class Distill(InnerDistillation):
    """Stage 1: task-agnostic distillation of the student on raw text, by one of `METHODS`.

    Attributes:
        also: Further methods.

    Example:
        >>> from edgemin_hf.recipe.stages import Distill
        >>> Distill(max_steps=1000).needs
        (<Product.RAW_TEXT: 'raw text'>, <Product.MODEL: 'a teacher that is a model'>)
    """

    stage: Literal["distill"] = "distill"
    needs: ClassVar[tuple[Product, ...]] = (Product.RAW_TEXT, Product.MODEL)
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT,)

    def teacher(self, context: Context) -> PreTrainedModel:
        """Load the teacher: the assistant where there is one. See `InnerDistillation.teacher`."""
        if context.maker(Product.ASSISTANT) is None:
            return super().teacher(context)
        return context.load(context.folder_with(Product.ASSISTANT), self.head(context))

    def compared(self, context: Context) -> tuple[PretrainedConfig, PretrainedConfig]:
        """Return the configurations of student and teacher, or assistant."""
        return context.shapes.student, context.shapes.assistant or context.shapes.teacher

    def check(self, context: Context) -> None:
        """Check that the methods can compare the two models; a search needs a task."""
        if isinstance(self, LayerSearch) and self.searches and context.recipe.task is not None:
            student, teacher = self.compared(context)
            check_methods([self], student, teacher, context.recipe.task)  # every layer to try
            tried = self.layers_to_try(shape_of(teacher).num_hidden_layers)
            self.check_compared(context, self.at(tried[0]))
        else:
            super().check(context)

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Train, after a search for the teacher's layer where that is asked for. See `Stage.run`."""
        if not (isinstance(self, LayerSearch) and self.searches):
            return super().run(context, folder, work)
        depth = shape_of(self.teacher(context).config).num_hidden_layers
        found = search_teacher_layer(
            context, self.layers_to_try(depth), lambda layer, place: self._tried(context, layer, place), work
        )
        stage = self.at(found.best)
        outcome = train(stage, stage.trainer(context, work), folder, stage.metric(context))
        note = f"teacher layer {found.best} of {', '.join(map(str, found.layers))}"
        return replace(outcome, search=found, notes=(*outcome.notes, note))

    def _tried(self, context: Context, layer: int, work: Path) -> float:
        """Return the task's metric of a student that learned from a layer, and then the task, for a few steps each."""
        assert isinstance(self, LayerSearch)  # noqa: S101 - it searches
        steps = self.search_steps
        student = _short(context, replace(self.at(layer), max_steps=steps), work)
        known = next((stage for stage in context.recipe.stages if isinstance(stage, TaskDistill)), TaskDistill())
        task = replace(known, max_steps=steps)
        trainer = task.trainer(context, work, student)
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.train()
        trainer_metrics: dict[str, float] = trainer.evaluate()
        return trainer_metrics[f"eval_{context.task.metric_name}"]

    def work(self, context: Context) -> Work:
        """Return what the training runs, the tries of a search among it. See `InnerDistillation.work`."""
        found = super().work(context)
        if not (isinstance(self, LayerSearch) and self.searches):
            return found
        tried = self.layers_to_try(shape_of(found.compared).num_hidden_layers)
        return replace(found, more_steps=2 * self.search_steps * len(tried))


def _short(context: Context, stage: Distill, work: Path) -> PreTrainedModel:
    trainer = stage.trainer(context, work)
    trainer.args.save_strategy = SaveStrategy.NO
    trainer.train()
    trainer.evaluate()
    model: PreTrainedModel = trainer.model
    return model
