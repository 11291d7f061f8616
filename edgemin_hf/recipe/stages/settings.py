"""The stages of a recipe: typed settings, with those of their methods among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, field, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag
from pydantic.dataclasses import dataclass

from edgemin_hf.data.augmentation import AugmentationConfig
from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.distillation.task import TaskDistillationConfig
from edgemin_hf.distillation.weighted import Weighted
from edgemin_hf.pruning.config import PruningConfig
from edgemin_hf.quantization.native import QuantizationConfig
from edgemin_hf.quantization.reconstruction import ReconstructionConfig
from edgemin_hf.recipe.stages.methods import (
    METHODS,
    STRICT,
    Count,
    LayerSearch,
    ParsedAlso,
    Positive,
    check_rest,
    with_method,
)


@dataclass(config=STRICT)
class Training:
    """Settings that all training stages share, by their names in `transformers.TrainingArguments`."""

    num_train_epochs: Positive = 3.0
    max_steps: int = -1
    per_device_train_batch_size: Count = 32
    gradient_accumulation_steps: Count = 1
    learning_rate: Positive = 2e-4
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.06
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.01
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    adam_epsilon: Positive = 1e-8
    save_steps: Count = 250
    least_steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.max_steps < self.least_steps and self.max_steps != -1:
            allowed = f"{self.least_steps} or more, or -1 to go by num_train_epochs"
            raise ValueError(f"max_steps: {self.max_steps}; allowed: {allowed}")
        check_rest(Training, self)


@dataclass(config=STRICT)
class Finetune(Training):
    """Fine-tune the teacher on the task; without this stage it is used as it is."""

    stage: Literal["finetune"] = "finetune"
    folder: ClassVar[str] = "teacher"


@dataclass(config=STRICT)
class Augment:
    """Add copies of the training rows in which words are replaced, for all stages that train the student on the task.

    See `AugmentationConfig`, whose seed is the recipe's. Without `model` the teacher predicts the words, as the recipe
    names it.
    """

    stage: Literal["augment"] = "augment"
    copies: int = 20
    probability: float = 0.4
    candidates: int = 15
    model: str | None = None
    vectors: str | None = None
    folder: ClassVar[str] = "augment"

    def __post_init__(self) -> None:
        self.settings(seed=0, vectors=self.vectors)

    def settings(self, seed: int, vectors: str | None) -> AugmentationConfig:
        """Return the settings of the augmentation alone."""
        return AugmentationConfig(self.copies, self.probability, self.candidates, self.model, vectors, seed)


@dataclass(config=STRICT)
class Distill(Training):
    """Stage 1: task-agnostic distillation of the student on raw text, by one of `METHODS`.

    Attributes:
        also: Further methods.
    """

    also: list[ParsedAlso] = field(default_factory=list)
    stage: ClassVar[str] = "distill"
    method: ClassVar[str]
    folder: ClassVar[str] = "distill"


@dataclass(config=STRICT)
class Assistant(Distill):
    """Stage 1 for an assistant between teacher and student, of whom the stage `distill` then learns."""

    stage: ClassVar[str] = "assistant"
    folder: ClassVar[str] = "assistant"


@dataclass(config=STRICT)
class DistillOnTask(Distill):
    """Distillation of inner layers on the task's training texts, without their labels' loss."""

    stage: ClassVar[str] = "distill_on_task"
    folder: ClassVar[str] = "distill_on_task"


@dataclass(config=STRICT)
class TaskStage(Training, TaskDistillationConfig):
    """Settings of the stages that learn the task from the teacher's predictions and the labels.

    Attributes:
        also: Further methods, on the same data.
    """

    also: list[ParsedAlso] = field(default_factory=list)


@dataclass(config=STRICT)
class TaskDistill(TaskStage):
    """Stage 2: distillation of the student on the task."""

    stage: Literal["task_distill"] = "task_distill"
    folder: ClassVar[str] = "task_distill"


@dataclass(config=STRICT)
class Prune(TaskStage, PruningConfig):
    """Remove heads, feed-forward neurons and layers of the student, and distils again. See `PruningConfig`.

    With `max_steps: 0` the student is pruned and not trained.
    """

    stage: Literal["prune"] = "prune"
    folder: ClassVar[str] = "prune"
    least_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        PruningConfig.__post_init__(self)
        if self.max_steps == 0 and self.schedule != "one_shot":
            raise ValueError(f"max_steps: 0 with schedule {self.schedule}; allowed: 1 or more, or schedule one_shot")


@dataclass(config=STRICT)
class Pruning(PruningConfig):
    """The settings of `PruningConfig` inside another stage's."""


@dataclass(config=STRICT)
class Reconstruction(ReconstructionConfig):
    """The settings of `ReconstructionConfig` inside another stage's; its seed is the recipe's."""

    seed: int = field(default=0, init=False)

    def settings(self, seed: int) -> ReconstructionConfig:
        """Return the settings of the reconstruction alone."""
        return ReconstructionConfig(**{**asdict(self), "seed": seed})


@dataclass(config=STRICT)
class Quantize(TaskStage, QuantizationConfig):
    """Quantisation-aware training of the student, distilled from the teacher. See `QuantizationConfig`.

    With `max_steps: 0` it is post-training quantisation: the student is calibrated and not trained. With provider "inc"
    Neural Compressor's own does that.

    Attributes:
        pruning: Prunes the student in the same training.
        reconstruction: Trains module after module to compute what the student computed before it was quantised, after
            the calibration and before the first step.
    """

    pruning: Pruning | None = None
    reconstruction: Reconstruction | None = None
    stage: Literal["quantize"] = "quantize"
    folder: ClassVar[str] = "quantize"
    least_steps: ClassVar[int] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        QuantizationConfig.__post_init__(self)
        if self.pruning is not None:
            if self.provider == "inc":
                raise ValueError("pruning: beside provider inc; allowed: a stage prune of its own")
            if self.target_size_mb is not None:
                raise ValueError("pruning: beside target_size_mb; allowed: a stage prune of its own before it")
            if self.max_steps == 0 and self.pruning.schedule != "one_shot":
                raise ValueError(
                    f"max_steps: 0 with pruning.schedule {self.pruning.schedule}; allowed: 1 or more, or one_shot"
                )
        if self.reconstruction is not None:
            if self.provider == "inc":
                raise ValueError("reconstruction: beside provider inc, whose scales it can't train; allowed: native")
            if self.pruning is not None:
                raise ValueError(
                    "reconstruction: beside pruning, which leaves no unpruned model to compute like; allowed: a stage "
                    "prune of its own"
                )

    @property
    def quantized_by_inc(self) -> bool:
        """Whether Neural Compressor's post-training quantisation does it."""
        return self.provider == "inc" and self.max_steps == 0

    def with_precisions(self, precisions: Mapping[str, Literal["int8", "int4"]]) -> Quantize:
        """Return the settings with precisions by name instead of a target size."""
        return replace(self, overrides={**self.overrides, **precisions}, target_size_mb=None)


@dataclass(config=STRICT)
class PruneVocabulary:
    """Cut the student's vocabulary to the tokens of the task's training texts, after all training.

    See `prune_vocabulary`. The student then has a tokenizer of its own.

    Attributes:
        files: Further texts whose tokens stay (.txt, .jsonl, .parquet, also .zst), relative to the recipe.
        text_column: The column of a table that holds the text.
        min_count: How often a token must occur to stay.
    """

    stage: Literal["prune_vocabulary"] = "prune_vocabulary"
    files: list[str] = field(default_factory=list)
    text_column: str = "text"
    min_count: Count = 1
    folder: ClassVar[str] = "prune_vocabulary"


@dataclass(config=STRICT)
class Export:
    """Export student and teacher to ONNX, and checks the graphs against PyTorch on validation texts.

    Attributes:
        fidelity_texts: Number of those texts.
    """

    stage: Literal["export"] = "export"
    fidelity_texts: Count = 256
    folder: ClassVar[str] = "export"


@dataclass(config=STRICT)
class Evaluate:
    """Measure the task's metric on the test set; the only stage that opens it."""

    stage: Literal["evaluate"] = "evaluate"
    folder: ClassVar[str] = "evaluate"


@dataclass(config=STRICT)
class Benchmark:
    """Measure latency on test sentences, batch 1, without padding.

    Attributes:
        sentences: Number of sentences, evenly spaced in the test set.
        rounds: Number of counted rounds over them.
        openvino: Whether the graphs are measured in OpenVINO too, and by the stage `evaluate` their predictions.
    """

    stage: Literal["benchmark"] = "benchmark"
    sentences: Count = 500
    rounds: Count = 5
    openvino: bool = False
    folder: ClassVar[str] = "benchmark"


@dataclass(config=STRICT)
class Report:
    """Write the artefact: model, graphs, card, report, benchmark.

    Attributes:
        title: Name of the model in card and report.
        language: Language code for the card.
        license: Licence of the student's weights, a Hub identifier such as apache-2.0.
        datasets: Hub ids of the datasets that it was made from.
        attribution: A sentence on whose work the data and the teacher are, and under which terms.
        test_set: What the task's metric is measured on, in words.
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


def methods_of(stage: Distill | TaskStage) -> list[DistillationConfig]:
    """Return the methods of a stage: its own, and the others with their weights."""
    own: Any = stage
    others: list[Any] = list(stage.also)
    return [own, *(Weighted(other, other.weight) for other in others)]


_LEAVES_OUT = {"assistant": ("mlkd_task",), "distill": ("mlkd_task",), "distill_on_task": ("distilbert",)}
"""Methods that a stage can't use: raw text has no labels, and a classifier no masked-LM head."""
_DISTILLS = [
    with_method(base, name, LayerSearch if name == "minilmv2" else config, stage=base.stage)
    for base in (Assistant, Distill, DistillOnTask)
    for name, config in METHODS.items()
    if name not in _LEAVES_OUT[base.stage]
]
_OTHERS: tuple[Any, ...] = (Augment, TaskDistill, Prune, Quantize, PruneVocabulary, Export, Evaluate, Benchmark, Report)


def tag_of(stage: Any) -> str | None:
    """Return what tells a stage's settings from others': its name, and its method where it has a choice."""
    read: Callable[[str], Any] = stage.get if isinstance(stage, dict) else lambda name: getattr(stage, name, None)
    name = read("stage")
    return f"{name}:{read('method') or 'minilmv2'}" if name in _LEAVES_OUT else name


SETTINGS: dict[str, type] = {
    "finetune": Finetune,
    **{f"{kind.stage}:{kind.method}": kind for kind in _DISTILLS},
    **{kind.stage: kind for kind in _OTHERS},
}
"""The settings of every stage, by `tag_of`."""

TrainingStage = Finetune | Distill | TaskDistill | Prune | Quantize
Stage = TrainingStage | Augment | PruneVocabulary | Export | Evaluate | Benchmark | Report

if TYPE_CHECKING:
    ParsedStage = Stage
else:
    _TAGGED = [Annotated[kind, Tag(tag)] for tag, kind in SETTINGS.items()]
    ParsedStage = Annotated[reduce(or_, _TAGGED), Discriminator(tag_of)]
