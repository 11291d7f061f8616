"""The recipe: typed settings, and what its stages leave for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from enum import StrEnum
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag
from pydantic.dataclasses import dataclass
from transformers import PretrainedConfig

from edgemin_hf.data.raw_text import HubText, TextFiles
from edgemin_hf.modeling.initialization import Initialization
from edgemin_hf.recipe.errors import RecipeError as RecipeError
from edgemin_hf.tasks.glue import Glue
from edgemin_hf.tasks.known import NAMED, task_type
from edgemin_hf.tasks.table_task import TableTask

STRICT = ConfigDict(extra="forbid", strict=True)
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Product(StrEnum):
    """What stages need and leave, by its name in a message.

    Example:
        >>> from edgemin_hf.recipe import Product
        >>> from edgemin_hf.recipe.stages import Export
        >>> Product.GRAPHS in Export.leaves, str(Product.GRAPHS)
        (True, 'graphs')
    """

    RAW_TEXT = "raw text"
    TASK = "a task"
    MODEL = "a teacher that is a model"
    TEACHER = "a fine-tuned teacher"
    ROWS = "augmented rows"
    ASSISTANT = "an assistant"
    STUDENT = "a student"
    TASK_STUDENT = "a student that learned the task"
    PRUNED = "a pruned student"
    QUANTIZED = "a quantised student"
    VOCABULARY = "a vocabulary of the student's own"
    GRAPHS = "graphs"
    PREDICTIONS = "predictions"
    BENCHMARK = "a benchmark"
    RIVALS = "rivals"
    ARTEFACT = "an artefact"


@runtime_checkable
class StageSettings(Protocol):
    """What the recipe and its context know of a stage.

    Attributes:
        stage: Which stage it is.
        name: Its name in this recipe.
        needs: What must be there before it.
        leaves: What it leaves for those after it.
        not_after: What must not be there before it.
    """

    name: str
    needs: ClassVar[tuple[Product, ...]]
    leaves: ClassVar[tuple[Product, ...]]
    not_after: ClassVar[tuple[Product, ...]]

    @property
    def stage(self) -> str:
        """Which stage it is."""
        ...

    @property
    def folder(self) -> str:
        """Name of the folder of its result."""
        ...

    def settings(self) -> dict[str, object]:
        """Return its settings, defaults included, as plain values."""
        ...

    def reshaped(self, student: PretrainedConfig) -> PretrainedConfig:
        """Return the configuration that it makes of the student's, as far as settings alone tell."""
        ...


@dataclass(config=STRICT)
class Teacher:
    """The teacher: a large model, and others beside it; or a table of what anything at all predicted.

    Attributes:
        model: Hub id, or folder (relative to the recipe if it is one there); None where there are predictions.
        revision: Branch, tag or commit of a Hub id; None takes the newest. The commit that it was stands in the record.
        ensemble: Further models, fine-tuned for the same labels, whose logits are averaged with those of the first
            where a student learns the task.
        predictions: Table of labels, logits or probabilities for the training texts, instead of a model.
    """

    model: str | None = None
    revision: str | None = None
    ensemble: list[str] = field(default_factory=list)
    predictions: str | None = None

    def __post_init__(self) -> None:
        if (self.model is None) == (self.predictions is None):
            raise ValueError(f"model: {self.model} beside predictions: {self.predictions}; expected: one of the two")
        for name in ("revision", "ensemble"):
            if self.model is None and getattr(self, name):
                raise ValueError(f"{name}: {getattr(self, name)} beside predictions; allowed: beside model alone")


@dataclass(config=STRICT)
class Student:
    """The student, or an assistant: a shape, where what is left out is the teacher's, or a checkpoint.

    See `create_student` for the shape.

    Attributes:
        checkpoint: Hub id or folder of a model to start from, instead of a shape; with the teacher's vocabulary where a
            stage compares the two by their tokens.
        revision: Branch, tag or commit of a checkpoint on the Hub; None takes the newest.
        num_hidden_layers: Depth. This and the further numbers are the teacher's where None, and no larger.
        hidden_size: Width of the layers.
        num_attention_heads: Attention heads of a layer; they must divide `hidden_size`.
        intermediate_size: Width of the feed-forward networks; None keeps the teacher's ratio to `hidden_size`.
        layers: The teacher's layer, counted from 1, that each student layer starts from; None spreads them evenly from
            the first to the last.
        model_type: Another family, such as "distilbert" for a BERT teacher; None is the teacher's.
        embedding_size: Width of the embedding tables before a projection to `hidden_size`, of families that have one,
            such as "electra" for a BERT teacher.
        max_position_embeddings: Rows of the table of positions: no text is longer.
        initialization: What becomes of the teacher's weights where widths differ: "slice" keeps the strongest
            dimensions of the residual stream, evenly spaced heads and neurons; "svd" projects the stream on its
            principal directions; "copy" takes only what has the same shape; "random" takes nothing.
        head: What its classifier reads: "cls", "mean" (of the tokens), or with "auto" what the teacher's does, or what
            the checkpoint was made for.
        dropout: The probability of dropout in its training, wherever the model has it; None is the teacher's, or with
            `model_type` the family's own. 0 saves the random numbers, a sixth of a small student's step on two cores.
    """

    checkpoint: str | None = None
    revision: str | None = None
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    layers: list[int] | None = None
    model_type: str | None = None
    embedding_size: int | None = None
    max_position_embeddings: int | None = None
    initialization: Initialization = "slice"
    head: Literal["auto", "cls", "mean"] = "auto"
    dropout: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in student_shape(self).items() if value is not None and name != "head"]
        if self.checkpoint is not None and given:
            raise ValueError(f"{given[0]}: {getattr(self, given[0])} beside checkpoint; allowed: one of the two")
        if self.revision is not None and self.checkpoint is None:
            raise ValueError(f"revision: {self.revision}; allowed: beside checkpoint alone")


@dataclass(config=STRICT)
class RawText:
    """Raw text for task-agnostic distillation: files, or a dataset of the Hub.

    Attributes:
        files: Text (.txt: documents between blank lines) or tables (.jsonl, .parquet; .tsv and .csv where not
            packed), each also compressed (.zst) where packed; relative to the recipe.
        dataset: Id of a dataset on the Hub, which is read as a stream, instead of files.
        dataset_config: Configuration of the dataset, such as a language; None where it has one.
        dataset_split: Split of the dataset.
        revision: Branch, tag or commit of the dataset; None takes the newest.
        text_column: The column of a table that holds the text.
        max_length: Tokens of a block, or after which a row is cut.
        pack: Whether documents are joined and cut into blocks of `max_length` tokens, without padding. Else each
            different row is one example: for short texts such as questions.
        validation_blocks: How many blocks, the last ones, are held out to validate on, where packed.
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

    def source(self, root: Path) -> TextFiles | HubText:
        """Return the documents that it names, of text that is packed; `root` is the recipe's folder."""
        if self.dataset is not None:
            return HubText(self.dataset, self.dataset_config, self.dataset_split, self.revision, self.text_column)
        return TextFiles([root / file for file in self.files], self.text_column)


def _meant(task: TableTask | Glue) -> TableTask:
    """Return the task that is meant by what stands for one."""
    return task.task() if isinstance(task, Glue) else task


if TYPE_CHECKING:
    ParsedTask = TableTask
else:
    _PARSED = {
        name: dataclass(config=STRICT)(type(task.__name__, (task,), {"__doc__": task.__doc__, "__module__": __name__}))
        for name, task in NAMED.items()
    }
    ParsedTask = Annotated[
        reduce(or_, [Annotated[task, AfterValidator(_meant), Tag(name)] for name, task in _PARSED.items()]),
        Discriminator(lambda task: task_type(task) if isinstance(task, Mapping) else getattr(task, "type", None)),
    ]


# What a stage is, only those who parse a recipe know.
@dataclass(config=ConfigDict(**STRICT, arbitrary_types_allowed=True))
class Recipe:
    """The way from a teacher to an artefact.

    Attributes:
        name: A short name, also of the repository in the card's snippets.
        output_dir: Folder of the run, relative to where the command is given.
        teacher: The large model.
        stages: What to do, in this order: each has `stage`, which one it is, that one's settings, and a `name` where it
            stands twice.
        task: What the student is for; None where all stages are task-agnostic.
        student: Its shape, or a checkpoint; a copy of the teacher where nothing is said.
        assistant: Shape of an assistant, which the stage `assistant` makes.
        raw_text: Text for stage 1: the stages `assistant` and `distill`.
        seed: Seed of the split, of initialisation and of training.
        precision: Of training: "bf16", "fp32", or "auto", bf16 where the processor computes in it natively.
        threads: Threads for PyTorch and ONNX Runtime, but in the stage `benchmark`, which has its own; None takes every
            core.
        report_to: Trackers of experiments that trainings report to, by their names in `TrainingArguments`.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.recipe import Recipe, load_recipe
        >>> settings = {"name": "demo", "output_dir": "run", "teacher": {"model": "me/bert"}}
        >>> settings |= {"raw_text": {"files": ["text.txt"]}, "stages": [{"stage": "distill", "method": "minilmv2"}]}
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps(settings))  # JSON is YAML
        ...     recipe, _ = load_recipe(Path(folder, "demo.yaml"))
        >>> isinstance(recipe, Recipe), recipe.seed, recipe.teacher.model
        (True, 0, 'me/bert')
    """

    name: Annotated[str, Field(min_length=1)]
    output_dir: Annotated[str, Field(min_length=1)]
    teacher: Teacher
    stages: Sequence[StageSettings]
    task: ParsedTask | None = None
    student: Student = field(default_factory=Student)
    assistant: Student | None = None
    raw_text: RawText | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    report_to: list[str] = field(default_factory=list)


def model_name(name: str, root: Path) -> str:
    """Return a model's Hub id, or its folder with the recipe's own as root."""
    folder = root / name
    return str(folder) if folder.is_dir() else name


def student_shape(student: Student, task: TableTask | None = None) -> dict[str, Any]:
    """Return a student's settings, and what its task asks of its head, as the arguments of `create_student`."""
    own = ("checkpoint", "revision", "initialization")
    of_task = {} if task is None else {"embedding_width": task.embedding_width}
    return {f.name: getattr(student, f.name) for f in fields(Student) if f.name not in own} | of_task
