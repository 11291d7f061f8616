"""The models of a run and their tokenizers, each loaded when a stage asks for it. It knows no stage by name."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from accelerate import PartialState
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from edgemin_hf.distillation.predictions import Predictions
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.loading import load_quantized
from edgemin_hf.recipe.run_folder import RunFolder
from edgemin_hf.recipe.schema import Product, Recipe, StageSettings, Student
from edgemin_hf.recipe.shapes import Shapes
from edgemin_hf.tasks.labels import labels_of
from edgemin_hf.tasks.table_task import TableTask
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.utils.edgemin_config import EdgeminConfig

logger = logging.getLogger(__name__)


class RunModels(RunFolder):
    """The models of a run.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        output: The folder of the run.
    """

    def __init__(self, recipe: Recipe, root: Path, output: Path) -> None:
        super().__init__(recipe, output)
        self.root = root
        self.shapes = Shapes(recipe, root)

    @property
    def has_teacher(self) -> bool:
        """Whether the teacher is a model, which can be exported and measured beside the student."""
        return self.recipe.teacher.model is not None

    @property
    def task(self) -> TableTask:
        """The task, of a stage that can't be without one."""
        assert self.recipe.task is not None  # noqa: S101 - the order of the stages is checked
        return self.recipe.task

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Number of each label: the teacher's own where it is a model that is not fine-tuned here."""
        if self.maker(Product.TEACHER) is not None or not self.has_teacher:
            return {label: index for index, label in enumerate(self.task.labels(self.root))}
        return labels_of(self.shapes.teacher)

    @cached_property
    def teacher_folder(self) -> str:
        """Folder of the teacher of all student stages: the fine-tuned one, where the recipe makes one."""
        finetuned = self.maker(Product.TEACHER)
        return self.base_folder if finetuned is None else str(self.folder(finetuned))

    @cached_property
    def base_folder(self) -> str:
        """Folder of the teacher as the recipe names it; found or downloaded, and told on the terminal."""
        teacher = self.recipe.teacher
        assert teacher.model is not None  # noqa: S101 - the order of the stages is checked
        found = self.shapes.checkpoint(teacher.model, teacher.revision)
        if PartialState().is_main_process:
            logger.info("teacher %s: weights from %s", teacher.model, found.source)
        return found.path

    @cached_property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's tokenizer; it neither pads nor cuts unless asked."""
        # From the fine-tuned teacher where there is one: the Hub is not needed again.
        finetune = self.maker(Product.TEACHER)
        finetuned = finetune is not None and self.finished_record(finetune) is not None
        return self._fitted(free_tokenizer(self.teacher_folder if finetuned else self.base_folder))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's until its vocabulary is cut: the teacher's, or that of its checkpoint with other tokens."""
        student = self.recipe.student
        if student.checkpoint is None or not self.shapes.own_tokens:
            return self.teacher_tokenizer
        found = self.shapes.checkpoint(student.checkpoint, student.revision, weights=False)
        return self._fitted(free_tokenizer(found.path))

    def _fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return a tokenizer that reads the task's examples, where there is a task."""
        return tokenizer if self.recipe.task is None else self.recipe.task.fitted(tokenizer)

    def student_tokenizer(self, stage: StageSettings) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the student as a stage finds it: its own, where the vocabulary was cut."""
        cut = self.maker(Product.VOCABULARY, before=stage)
        return self.tokenizer if cut is None else free_tokenizer(str(self.folder(cut)))

    @cached_property
    def predictions(self) -> Predictions | None:
        """What the teacher's table predicts; None where the teacher is a model."""
        file = self.recipe.teacher.predictions
        if file is None:
            return None
        if not isinstance(self.task, TextTask):
            raise ValueError(f"{file} for {self.task.type}; allowed: for tasks on whole texts")
        return Predictions(self.root / file, self.task, self.label_ids)

    def checkpoint_folder(self, shape: Student) -> str:
        """Return the folder of a student's checkpoint, found or downloaded."""
        assert shape.checkpoint is not None  # noqa: S101 - the caller's check
        return self.shapes.checkpoint(shape.checkpoint, shape.revision).path

    @property
    def head(self) -> AutoClass:
        """The class of models with the task's head; without a task that of models without one."""
        return AutoModel if self.recipe.task is None else self.recipe.task.auto_class

    @property
    def labels(self) -> dict[str, object]:
        """What tells a checkpoint of the task's labels: arguments of `from_pretrained`."""
        return self.task.model_kwargs(self.label_ids)

    def load(self, folder: str | Path, head: AutoClass | None = None) -> PreTrainedModel:
        """Load a model from safetensors, with the task's head if no other is asked for.

        A head that the checkpoint lacks is made for the task's labels; what it lacks is drawn under the recipe's seed.
        """
        head, task = head or self.head, self.recipe.task
        set_seed(self.recipe.seed)
        lacks_head = task is not None and head is task.auto_class and not has_head(folder, head)
        return load_pruned(folder, head, **(self.labels if lacks_head else {}))

    def student(self, stage: StageSettings, head: AutoClass | None = None) -> PreTrainedModel | None:
        """Load what the stages before one left of the student; None where they left none."""
        before = self.maker(Product.STUDENT, before=stage)
        return None if before is None else self.trained(before, head)

    def trained(self, stage: StageSettings, head: AutoClass | None = None) -> PreTrainedModel:
        """Load the student that a stage left, with fake-quantised modules and their ranges once it is quantised."""
        folder = self.folder(stage)
        if self.quantization(stage, included=True) is None:
            return self.load(folder, head)
        set_seed(self.recipe.seed)
        return load_quantized(folder, head or self.head)

    def quantization(self, stage: StageSettings, *, included: bool = False) -> QuantizationConfig | None:
        """Return how the student was quantised before a stage, or by it where it is `included`; None where not."""
        last = stage if included and Product.QUANTIZED in stage.leaves else self.maker(Product.QUANTIZED, stage)
        if last is None:
            return None
        settings = EdgeminConfig.from_pretrained(self.folder(last)).quantization
        assert settings is not None  # noqa: S101 - it left a quantised student
        return QuantizationConfig.from_dict(settings)


def has_head(folder: str | Path, head: AutoClass) -> bool:
    """Return whether a checkpoint brings the head of an `AutoModelFor...` class."""
    return configured_for(AutoConfig.from_pretrained(folder), head)


def free_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """Load a checkpoint's tokenizer, which neither pads nor cuts unless asked."""
    tokenizer = load_tokenizer(folder)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer
