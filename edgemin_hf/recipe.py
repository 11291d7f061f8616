"""The recipe: typed settings from YAML, an ordered list of stages, checked whole before weights are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from edgemin_hf.data import check_table
from edgemin_hf.distillation.minilmv2 import MiniLMv2Config
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.encoder import family_of, first_position, shape_of
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.pruning.structured import PruningConfig
from edgemin_hf.pruning.surgery import check_prunable
from edgemin_hf.quantization.native import QuantizationConfig
from edgemin_hf.student import student_config
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


def check_recipe(recipe: Recipe, root: Path) -> PretrainedConfig:
    """Checks a recipe against its files and its teacher's configuration; loads no weights.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.

    Returns:
        The teacher's configuration.

    Raises:
        RecipeError: If a file, a column, or a shape is not possible.
    """
    with _prefix("task."):
        recipe.task.check(root)
    for name in recipe.raw_text.files if recipe.raw_text else ():
        with _prefix("raw_text.files: "):
            check_table(root / name, recipe.raw_text.text_column)  # type: ignore[union-attr]
    with _prefix("teacher.model: "):
        config = _load_teacher_config(recipe, root)
    _check_teacher(recipe, root, config)
    with _prefix("student."):
        student = student_config(config, **student_shape(recipe.student))
    for stage in recipe.stages:
        with _prefix(f"{stage.stage}."):
            if isinstance(stage, Distill):
                stage.check(shape_of(student), shape_of(config))
            if isinstance(stage, Prune) and stage.head_sparsity:
                check_prunable(student)
    return config


def _load_teacher_config(recipe: Recipe, root: Path) -> PretrainedConfig:
    name = teacher_name(recipe, root)
    if Path(name).is_dir() and Path(name).absolute().is_relative_to(Path(recipe.output_dir).absolute()):
        raise ValueError(f"{recipe.teacher.model}, which lies in output_dir; allowed: a folder outside, or a Hub id")
    found = resolve_checkpoint(name, weights=False)
    try:
        config = AutoConfig.from_pretrained(found.path)
        AutoTokenizer.from_pretrained(found.path)
    except (OSError, TypeError, KeyError) as error:
        raise ValueError(f"{name}: its configuration or tokenizer can't be loaded ({error})") from None
    family_of(config)
    return config


def _check_teacher(recipe: Recipe, root: Path, config: PretrainedConfig) -> None:
    lengths = {"task": recipe.task.max_length} | ({"raw_text": recipe.raw_text.max_length} if recipe.raw_text else {})
    longest = config.max_position_embeddings - first_position(config)
    for name, length in lengths.items():
        if length > longest:
            raise RecipeError(f"{name}.max_length: {length}; allowed: 3 to {longest}, the teacher's positions")
    names = {stage.stage for stage in recipe.stages}
    if "finetune" in names or not names & {"task_distill", "prune", "quantize"}:
        return
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise RecipeError(
            f"teacher.model: {recipe.teacher.model}, which has no classification head; allowed without the stage "
            "finetune: a fine-tuned classifier"
        )
    missing = [label for label in recipe.task.labels(root) if label not in config.label2id]
    if missing:
        raise RecipeError(
            f"task.label_column: label {missing[0]!r}, which the teacher does not know; allowed without the stage "
            f"finetune: {', '.join(list(config.label2id)[:5])}..."
        )


def teacher_name(recipe: Recipe, root: Path) -> str:
    """Returns the teacher's Hub id, or its folder with the recipe's own as root."""
    folder = root / recipe.teacher.model
    return str(folder) if folder.is_dir() else recipe.teacher.model


def student_shape(student: Student) -> dict[str, Any]:
    """Returns a student's settings as the arguments of `create_student`."""
    return {f.name: getattr(student, f.name) for f in fields(Student)}


@contextmanager
def _prefix(prefix: str) -> Iterator[None]:
    """Turns a ValueError into a RecipeError with the field's path before it."""
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{prefix}{error}") from None


def settings_of(stage: Any) -> Mapping[str, Any]:
    """Returns a stage's settings, defaults included, as plain values."""
    return {f.name: getattr(stage, f.name) for f in fields(stage)}
