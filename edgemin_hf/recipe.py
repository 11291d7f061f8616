"""The recipe: typed settings, and an ordered list of stages that checks its own order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.pruning.structured import PruningConfig
from edgemin_hf.quantization.native import QuantizationConfig
from edgemin_hf.tasks import TextClassification

_STRICT = ConfigDict(extra="forbid", strict=True)
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RecipeError(ValueError):
    """A recipe that can't be run: one line that names field, value and what is allowed."""


@dataclass(config=_STRICT)
class Teacher:
    """The large model.

    Attributes:
        model: Hub id, or folder (relative to the recipe if it is one there).
    """

    model: str


@dataclass(config=_STRICT)
class Student:
    """The student's shape; what is left out is the teacher's. See `create_student`."""

    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    layers: list[int] | None = None
    model_type: str | None = None


@dataclass(config=_STRICT)
class RawText:
    """Raw text for task-agnostic distillation: one column of several tables, labels and duplicates dropped."""

    files: Annotated[list[str], Field(min_length=1)]
    text_column: str = "text"
    max_length: Annotated[int, Field(ge=3)] = 128


@dataclass(config=_STRICT)
class Task(TextClassification):
    """The task; see `TextClassification`."""


@dataclass(config=_STRICT)
class Training:
    """Settings that all training stages share, by their names in `transformers.TrainingArguments`."""

    num_train_epochs: _Positive = 3.0
    max_steps: int = -1
    per_device_train_batch_size: _Count = 32
    gradient_accumulation_steps: _Count = 1
    learning_rate: _Positive = 2e-4
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.06
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    save_steps: _Count = 250

    def __post_init__(self) -> None:
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"max_steps: {self.max_steps}; allowed: 1 or more, or -1 to go by num_train_epochs")
        # The other half of a stage's settings checks itself: dataclasses call only one __post_init__.
        check_rest = getattr(super(), "__post_init__", None)
        if check_rest is not None:
            check_rest()


@dataclass(config=_STRICT)
class Finetune(Training):
    """Fine-tunes the teacher on the task; without this stage it is used as it is."""

    stage: Literal["finetune"] = "finetune"
    folder: ClassVar[str] = "teacher"


@dataclass(config=_STRICT)
class Distill(Training, MiniLMv2Config):
    """Stage 1: task-agnostic distillation of the student on raw text."""

    stage: Literal["distill"] = "distill"
    method: Literal["minilmv2"] = "minilmv2"
    folder: ClassVar[str] = "distill"


@dataclass(config=_STRICT)
class TaskDistill(Training, TaskDistillationConfig):
    """Stage 2: distillation of the student on the task."""

    stage: Literal["task_distill"] = "task_distill"
    folder: ClassVar[str] = "task_distill"


@dataclass(config=_STRICT)
class Prune(Training, TaskDistillationConfig):
    """Removes heads and feed-forward neurons of the student, then distils again. See `PruningConfig`."""

    stage: Literal["prune"] = "prune"
    head_sparsity: float = 0.0
    ffn_sparsity: float = 0.0
    saliency: Literal["taylor", "random"] = "taylor"
    saliency_examples: int = 1024
    folder: ClassVar[str] = "prune"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pruning(seed=0)

    def pruning(self, seed: int) -> PruningConfig:
        """Returns the settings of the pruning alone."""
        return PruningConfig(self.head_sparsity, self.ffn_sparsity, self.saliency, self.saliency_examples, seed)


@dataclass(config=_STRICT)
class Quantize(Training, TaskDistillationConfig, QuantizationConfig):
    """Quantisation-aware training of the student, distilled from the teacher. See `QuantizationConfig`."""

    stage: Literal["quantize"] = "quantize"
    folder: ClassVar[str] = "quantize"

    def __post_init__(self) -> None:
        super().__post_init__()
        QuantizationConfig.__post_init__(self)


@dataclass(config=_STRICT)
class Export:
    """Exports student and teacher to ONNX, and checks the graphs against PyTorch on validation texts.

    Attributes:
        fidelity_texts: Number of those texts.
    """

    stage: Literal["export"] = "export"
    fidelity_texts: _Count = 256
    folder: ClassVar[str] = "export"


@dataclass(config=_STRICT)
class Evaluate:
    """Measures accuracy on the test set; the only stage that opens it."""

    stage: Literal["evaluate"] = "evaluate"
    folder: ClassVar[str] = "evaluate"


@dataclass(config=_STRICT)
class Benchmark:
    """Measures latency on test sentences, batch 1, without padding.

    Attributes:
        sentences: Number of sentences, evenly spaced in the test set.
        rounds: Number of counted rounds over them.
    """

    stage: Literal["benchmark"] = "benchmark"
    sentences: _Count = 500
    rounds: _Count = 5
    folder: ClassVar[str] = "benchmark"


@dataclass(config=_STRICT)
class Report:
    """Writes the artefact: model, graphs, card, report, benchmark.

    Attributes:
        title: Name of the model in card and report.
        language: Language code for the card.
        license: Licence of the student's weights, a Hub identifier such as apache-2.0.
        datasets: Hub ids of the datasets that it was made from.
        attribution: A sentence on whose work the data and the teacher are, and under which terms.
        test_set: What the accuracy is measured on, in words.
        repo_id: Where the card's snippets load the model from; "" is your-name/ and the recipe's name.
    """

    stage: Literal["report"] = "report"
    title: str = "Edge model"
    language: str = "en"
    license: str = "apache-2.0"
    datasets: list[str] = field(default_factory=list)
    attribution: str = ""
    test_set: str = "the test set"
    repo_id: str = ""
    folder: ClassVar[str] = "artefact"


TrainingStage = Finetune | Distill | TaskDistill | Prune | Quantize
Stage = TrainingStage | Export | Evaluate | Benchmark | Report


@dataclass(config=_STRICT)
class Recipe:
    """The way from a teacher to an artefact.

    Attributes:
        name: A short name.
        output_dir: Folder of the run, relative to where the command is given.
        teacher: The large model.
        task: What the student is for.
        stages: What to do, in this order.
        student: Its shape.
        raw_text: Text for stage 1.
        seed: Seed of the split, of initialisation and of training.
        precision: "bf16" and "fp32" say it; "auto" takes bf16 for training where the processor computes in it.
        threads: Threads for PyTorch and ONNX Runtime; None takes every core.
    """

    name: Annotated[str, Field(min_length=1)]
    output_dir: Annotated[str, Field(min_length=1)]
    teacher: Teacher
    task: Task
    stages: list[Annotated[Stage, Field(discriminator="stage")]]
    student: Student = field(default_factory=Student)
    raw_text: RawText | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None

    def __post_init__(self) -> None:
        _check_order([stage.stage for stage in self.stages])
        if any(stage.stage == "distill" for stage in self.stages) and self.raw_text is None:
            raise ValueError("raw_text: missing; allowed: files and text_column, since stage distill learns from them")


_MAKES_STUDENT = ("distill", "task_distill")
TRAINS_STUDENT = (*_MAKES_STUDENT, "prune", "quantize")
_NEEDS: dict[str, tuple[str, ...]] = {
    "prune": _MAKES_STUDENT,
    "quantize": _MAKES_STUDENT,
    "export": ("quantize",),
    "evaluate": ("export",),
    "benchmark": ("evaluate",),
    "report": ("benchmark",),
}
"""What a stage needs: one of these before it."""
_NO_TRAINING_AFTER = ("quantize", "export")


def _check_order(stages: Sequence[str]) -> None:
    if not stages:
        raise ValueError("stages: none; allowed: at least one")
    for index, stage in enumerate(stages):
        before, needs = stages[:index], _NEEDS.get(stage, ())
        if stage in before:
            raise ValueError(f"stages: {stage} twice; allowed: once")
        if needs and not set(needs) & set(before):
            raise ValueError(f"stages: {stage} in place {index + 1}; allowed: after {' or '.join(needs)}")
        if stage == "finetune" and before:
            raise ValueError(f"stages: finetune in place {index + 1}; allowed: first")
        too_late = [other for other in _NO_TRAINING_AFTER if other in before]
        if stage in TRAINS_STUDENT and too_late:
            raise ValueError(f"stages: {stage} in place {index + 1}; allowed: before {too_late[0]}")


def teacher_name(recipe: Recipe, root: Path) -> str:
    """Returns the teacher's Hub id, or its folder with the recipe's own as root."""
    folder = root / recipe.teacher.model
    return str(folder) if folder.is_dir() else recipe.teacher.model


def student_shape(student: Student) -> dict[str, Any]:
    """Returns a student's settings as the arguments of `create_student`."""
    return {f.name: getattr(student, f.name) for f in fields(Student)}


def settings_of(stage: Any) -> Mapping[str, Any]:
    """Returns a stage's settings, defaults included, as plain values."""
    return {f.name: getattr(stage, f.name) for f in fields(stage)}
