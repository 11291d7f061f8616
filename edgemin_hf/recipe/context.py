"""A recipe at work: its data, tokenizer and models. It knows no stage by name."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from edgemin_hf.data.batches import token_hash
from edgemin_hf.data.corpus import TokenBlocks
from edgemin_hf.data.tables import read_table
from edgemin_hf.distillation.task import TEACHER_LOGITS
from edgemin_hf.distillation.teacher_logits import cached_teacher_logits
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.student import create_student, student_from_checkpoint
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.loading import load_quantized
from edgemin_hf.recipe.estimate import Estimator
from edgemin_hf.recipe.raw_rows import packed_rows, token_counts, unpacked_rows
from edgemin_hf.recipe.run_folder import RunFolder
from edgemin_hf.recipe.schema import Product, Recipe, StageSettings, Student, student_shape
from edgemin_hf.recipe.shapes import Shapes
from edgemin_hf.tasks.labels import labels_of
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.utils.content import sha256_of
from edgemin_hf.utils.cpus import processes_of_node, usable_cpus
from edgemin_hf.utils.edgemin_config import EdgeminConfig
from edgemin_hf.utils.hardware import cpu_flags
from edgemin_hf.utils.records import Json

logger = logging.getLogger(__name__)

GROUP_TIMEOUT = timedelta(days=7)
"""How long processes wait for each other: the first may export or augment for hours, and who dies ends all of them."""
AUGMENTED_ROWS = "train.parquet"
"""File of the training rows in the folder of a stage that leaves other ones."""
_UNPACKED_VALIDATION_SHARE = 0.05


class Context(RunFolder):
    """A recipe at work: its data, tokenizer and models, each loaded when a stage first asks for it.

    Args:
        recipe: The recipe.
        settings: The plain settings that it was made from.
        root: The folder that its paths are relative to.
        output: The folder of the run.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.recipe import Context, Product, load_recipe
        >>> stages = [{"stage": "finetune"}, {"stage": "task_distill"}]
        >>> settings = {"name": "demo", "output_dir": "run", "teacher": {"model": "me/bert"}, "stages": stages}
        >>> settings |= {"task": {"train_file": "train.csv", "test_file": "test.csv"}, "threads": 1}
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps(settings))
        ...     recipe, plain = load_recipe(Path(folder, "demo.yaml"))
        ...     context = Context(recipe, plain, root=Path(folder), output=Path(folder, "run"))
        >>> context.task.metric, context.maker(Product.TEACHER).name, context.folder_with(Product.STUDENT).name
        ('accuracy', 'finetune', 'task_distill')
    """

    def __init__(self, recipe: Recipe, settings: Json, root: Path, output: Path) -> None:
        super().__init__(recipe, output)
        self.settings = settings
        self.root = root
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.threads = recipe.threads or max(1, usable_cpus() // processes_of_node())
        torch.set_num_threads(self.threads)
        self.shapes = Shapes(recipe, root)

    @cached_property
    def estimator(self) -> Estimator:
        """What tells how long stages take here."""
        return Estimator(self.recipe, self.root, self.bf16, self.processes)

    @property
    def bf16(self) -> bool:
        """Whether training computes in bf16: as the recipe says, or where the processor does so natively."""
        if self.recipe.precision != "auto":
            return self.recipe.precision == "bf16"
        if torch.cuda.is_available():
            supported: bool = torch.cuda.is_bf16_supported()
            return supported
        return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})

    @property
    def machine(self) -> dict[str, object]:
        """What of this machine only changes how results are rounded, and with how many processes they are made."""
        precision = "bf16" if self.bf16 else "fp32"
        return {"threads": self.threads, "processes": self.processes, "precision": precision}

    # Data.

    @property
    def task(self) -> TextTask:
        """The task, of a stage that can't be without one."""
        assert self.recipe.task is not None  # noqa: S101 - the order of the stages is checked
        return self.recipe.task

    @cached_property
    def label_ids(self) -> dict[str, int]:
        """Number of each label: the teacher's own where it is not fine-tuned here."""
        if self.maker(Product.TEACHER) is not None:
            return {label: index for index, label in enumerate(self.task.labels(self.root))}
        return labels_of(AutoConfig.from_pretrained(self.teacher_folder))

    @cached_property
    def data(self) -> tuple[Dataset, Dataset]:
        """Training and validation rows of the task."""
        return self.task.train_and_validation(self.root, self.tokenizer, self.label_ids, self.recipe.seed)

    @cached_property
    def student_data(self) -> tuple[Dataset, Dataset]:
        """The rows that a student is trained on and validated with: augmented where the recipe says so."""
        return self.data if self.maker(Product.ROWS) is None else self._student_rows(self.tokenizer)

    def _student_rows(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, Dataset]:
        task, augmented = self.task, self.maker(Product.ROWS)
        train, validation = task.train_and_validation(self.root, tokenizer, self.label_ids, self.recipe.seed)
        if augmented is None:
            return train, validation
        table = read_table(self.folder(augmented) / AUGMENTED_ROWS)
        return task.tokenized(table, tokenizer, self.label_ids), validation

    def rows_of(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return those rows in the tokens of the student that a stage trains: its own, where its vocabulary was cut."""
        if self.maker(Product.VOCABULARY, before=stage) is None:
            return self.student_data
        return self._student_rows(self.student_tokenizer(stage))

    def rows_with_teacher_logits(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return the same rows with the teacher's logits, which are computed once for all stages."""
        with PartialState().main_process_first():
            own = self.rows_of(stage)
        train, validation = (
            rows.add_column(TEACHER_LOGITS, list(logits.numpy()))
            for rows, logits in zip(own, self._teacher_logits, strict=True)
        )
        return train, validation

    @cached_property
    def _teacher_logits(self) -> tuple[Tensor, Tensor]:
        with PartialState().main_process_first():
            train, validation = self.student_data
            return self._logits(train, "train"), self._logits(validation, "validation")

    def _logits(self, dataset: Dataset, part: str) -> Tensor:
        file = self.output / "cache" / f"{part}_logits.safetensors"
        teacher = self.load(self.teacher_folder).to(PartialState().device)
        return cached_teacher_logits(teacher, dataset, self.tokenizer, file, self._logits_key(dataset))

    def _logits_key(self, dataset: Dataset) -> str:
        """Hash what the logits are computed from: the teacher's weights and the token ids."""
        weights = sorted(Path(self.teacher_folder).glob("*.safetensors"))
        parts = [token_hash(dataset), *map(sha256_of, weights)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @cached_property
    def raw_text(self) -> tuple[Dataset | TokenBlocks, Dataset | TokenBlocks]:
        """Training and validation examples of stage 1."""
        raw = self.recipe.raw_text
        assert raw is not None  # noqa: S101 - the order of the stages is checked
        if raw.pack:
            return packed_rows(raw, self.root, self.tokenizer)
        sentences = unpacked_rows(raw, self.root, self.tokenizer)
        if self.recipe.task is not None:
            return sentences, self.data[1]
        split = sentences.train_test_split(test_size=_UNPACKED_VALIDATION_SHARE, seed=self.recipe.seed)
        return split["train"], split["test"]

    @property
    def packs(self) -> bool:
        """Whether raw text is packed into blocks of one length."""
        return self.recipe.raw_text is not None and self.recipe.raw_text.pack

    # Models.

    @cached_property
    def teacher_folder(self) -> str:
        """Folder of the teacher of all student stages: the fine-tuned one, where the recipe makes one."""
        finetuned = self.maker(Product.TEACHER)
        return self.base_folder if finetuned is None else str(self.folder(finetuned))

    @cached_property
    def base_folder(self) -> str:
        """Folder of the teacher as the recipe names it; found or downloaded, and told on the terminal."""
        found = self.shapes.checkpoint(self.recipe.teacher.model, self.recipe.teacher.revision)
        if PartialState().is_main_process:
            logger.info("teacher %s: weights from %s", self.recipe.teacher.model, found.source)
        return found.path

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The teacher's, and the student's until its vocabulary is cut; it neither pads nor cuts unless asked."""
        # From the fine-tuned teacher where there is one: the Hub is not needed again.
        finetune = self.maker(Product.TEACHER)
        finetuned = finetune is not None and self.finished_record(finetune) is not None
        return _free_tokenizer(self.teacher_folder if finetuned else self.base_folder)

    def student_tokenizer(self, stage: StageSettings) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the student as a stage finds it: its own, where the vocabulary was cut."""
        cut = self.maker(Product.VOCABULARY, before=stage)
        return self.tokenizer if cut is None else _free_tokenizer(str(self.folder(cut)))

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

    def new_student(self, shape: Student, teacher: PreTrainedModel, head: AutoClass | None = None) -> PreTrainedModel:
        """Make a student of a shape from its teacher, or from its checkpoint."""
        set_seed(self.recipe.seed)
        if shape.checkpoint is not None:
            found = self.shapes.checkpoint(shape.checkpoint, shape.revision)
            student = student_from_checkpoint(teacher, self.tokenizer, found.path, shape.head)
        else:
            counts = None
            if shape.embedding_size is not None:  # the texts that the student is for, else what it learns from
                rows = self.raw_text[0] if self.recipe.task is None else self.student_data[0]
                counts = token_counts(rows, teacher.config.vocab_size)
            student = create_student(
                teacher, **student_shape(shape), initialization=shape.initialization, token_counts=counts
            )
        task = self.recipe.task
        if task is not None and (head or self.head) is task.auto_class:
            # A teacher need not say it, but pipelines would squash the score of a student that does not.
            student.config.problem_type = task.problem_type
        return student


def has_head(folder: str | Path, head: AutoClass) -> bool:
    """Return whether a checkpoint brings the head of an `AutoModelFor...` class."""
    return configured_for(AutoConfig.from_pretrained(folder), head)


def _free_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(folder)
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
    return tokenizer
