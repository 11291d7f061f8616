"""The recipe: typed settings, and an ordered list of stages that checks its own order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgemin_hf.modeling.initialization import Initialization
from edgemin_hf.recipe.stages.methods import STRICT, Count
from edgemin_hf.recipe.stages.settings import Benchmark, ParsedStage
from edgemin_hf.tasks.text_classification import TextClassification


class RecipeError(ValueError):
    """A recipe that can't be run: one line that names field, value and what is allowed."""


@dataclass(config=STRICT)
class Teacher:
    """The large model.

    Attributes:
        model: Hub id, or folder (relative to the recipe if it is one there).
    """

    model: str


@dataclass(config=STRICT)
class Student:
    """The student, or an assistant: a shape, where what is left out is the teacher's, or a checkpoint.

    See `create_student` for the shape.

    Attributes:
        checkpoint: Hub id or folder of a model with the teacher's vocabulary to start from, instead of a shape.
        initialization: What becomes of the teacher's weights where widths differ.
    """

    checkpoint: str | None = None
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    layers: list[int] | None = None
    model_type: str | None = None
    initialization: Initialization = "slice"

    def __post_init__(self) -> None:
        given = [name for name, value in student_shape(self).items() if value is not None]
        if self.checkpoint is not None and given:
            raise ValueError(f"{given[0]}: {getattr(self, given[0])} beside checkpoint; allowed: one of the two")


@dataclass(config=STRICT)
class RawText:
    """Raw text for task-agnostic distillation: files, or a dataset of the Hub.

    Attributes:
        files: Text (.txt: documents between blank lines) or tables (.jsonl, .parquet; .tsv and .csv where not
            packed), each also compressed (.zst) where packed; relative to the recipe.
        dataset: Id of a dataset on the Hub, which is read as a stream.
        dataset_config: Its configuration, such as a language; None where it has one.
        dataset_split: Its split.
        revision: Its revision; None takes the newest.
        text_column: The column of a table that holds the text.
        max_length: Tokens of a block, or after which a row is cut.
        pack: Whether documents are joined and cut into blocks of `max_length` tokens, without padding. Else each
            different row is one example: for short texts such as questions.
        validation_blocks: Blocks that are held out, where packed.
    """

    files: list[str] = field(default_factory=list)
    dataset: str | None = None
    dataset_config: str | None = None
    dataset_split: str = "train"
    revision: str | None = None
    text_column: str = "text"
    max_length: Annotated[int, Field(ge=3)] = 128
    pack: bool = True
    validation_blocks: Count = 256

    def __post_init__(self) -> None:
        if bool(self.files) == bool(self.dataset):
            raise ValueError(f"files: {self.files} beside dataset: {self.dataset}; allowed: one of the two")
        if self.dataset and not self.pack:
            raise ValueError("pack: false beside dataset; allowed: true, since a dataset of the Hub is streamed")


@dataclass(config=STRICT)
class Task(TextClassification):
    """The task; see `TextClassification`."""


@dataclass(config=STRICT)
class Recipe:
    """The way from a teacher to an artefact.

    Attributes:
        name: A short name.
        output_dir: Folder of the run, relative to where the command is given.
        teacher: The large model.
        stages: What to do, in this order.
        task: What the student is for; None where all stages are task-agnostic.
        student: Its shape.
        assistant: Shape of an assistant, which the stage `assistant` makes.
        raw_text: Text for stage 1.
        seed: Seed of the split, of initialisation and of training.
        precision: "bf16" and "fp32" say it; "auto" takes bf16 for training where the processor computes in it.
        threads: Threads for PyTorch and ONNX Runtime; None takes every core.
    """

    name: Annotated[str, Field(min_length=1)]
    output_dir: Annotated[str, Field(min_length=1)]
    teacher: Teacher
    stages: list[ParsedStage]
    task: Task | None = None
    student: Student = field(default_factory=Student)
    assistant: Student | None = None
    raw_text: RawText | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None

    def __post_init__(self) -> None:
        names = [stage.stage for stage in self.stages]
        check_order(names)
        agnostic = ("assistant", "distill")
        needs_text = [name for name in names if name in agnostic]
        if needs_text and self.raw_text is None:
            raise ValueError(f"raw_text: missing; allowed: files or dataset, since stage {needs_text[0]} learns of it")
        needs_task = [name for name in names if name not in agnostic]
        if needs_task and self.task is None:
            raise ValueError(f"task: missing; allowed: files and columns, since stage {needs_task[0]} learns it")
        if ("assistant" in names) != (self.assistant is not None):
            raise ValueError(f"assistant: {self.assistant}; allowed: a shape if and only if there is a stage assistant")
        if self.precision == "bf16" and any(getattr(stage, "provider", None) == "inc" for stage in self.stages):
            raise ValueError("precision: bf16 beside provider inc; allowed: auto (that stage is trained in fp32), fp32")

    @property
    def openvino(self) -> bool:
        """Whether the graphs are measured in OpenVINO too."""
        return any(isinstance(stage, Benchmark) and stage.openvino for stage in self.stages)


_MAKES_STUDENT = ("distill", "distill_on_task", "task_distill")
TRAINS_STUDENT = (*_MAKES_STUDENT, "prune", "quantize")
_NEEDS: dict[str, tuple[str, ...]] = {
    "prune_vocabulary": TRAINS_STUDENT,
    "export": ("quantize",),
    "evaluate": ("export",),
    "benchmark": ("evaluate",),
    "report": ("benchmark",),
}
"""What a stage needs: one of these before it."""
_ON_TASK = ("distill_on_task", "task_distill", "prune", "quantize")
_TOO_LATE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_MAKES_STUDENT, "quantize"), ("quantize", "prune_vocabulary", "export")),
    "assistant": TRAINS_STUDENT,
    "augment": _ON_TASK,
    "prune": ("prune_vocabulary", "export"),
    "prune_vocabulary": ("export",),
}
"""What may not stand before a stage."""


def check_order(stages: Sequence[str]) -> None:
    """Check the order of a recipe's stages.

    Raises:
        ValueError: If a stage stands twice or in the wrong place.
    """
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
        too_late = [other for other in _TOO_LATE.get(stage, ()) if other in before]
        if too_late:
            raise ValueError(f"stages: {stage} in place {index + 1}; allowed: before {too_late[0]}")
    if "assistant" in stages and "distill" not in stages:
        raise ValueError("stages: assistant without distill; allowed: with it, which learns of the assistant")


def model_name(name: str, root: Path) -> str:
    """Return a model's Hub id, or its folder with the recipe's own as root."""
    folder = root / name
    return str(folder) if folder.is_dir() else name


def student_shape(student: Student) -> dict[str, Any]:
    """Return a student's settings as the arguments of `create_student`."""
    own = ("checkpoint", "initialization")
    return {f.name: getattr(student, f.name) for f in fields(Student) if f.name not in own}


def settings_of(stage: Any) -> Mapping[str, Any]:
    """Return a stage's settings, defaults included, as plain values."""
    return asdict(stage)
