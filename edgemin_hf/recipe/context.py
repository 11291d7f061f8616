"""A recipe at work: its machine, its data, and the students made of both. It knows no stage by name."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from edgemin_hf.data.corpus import TokenBlocks
from edgemin_hf.data.padding import TEACHER_LOGITS, TEACHER_ROW, PaddingCollator
from edgemin_hf.distillation.token_outputs import TokenOutputs
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.modeling.embedder_files import head_of, keep_sentence_files
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.pooling import POOLING
from edgemin_hf.modeling.student import create_student, student_from_checkpoint
from edgemin_hf.recipe.estimate import Estimator
from edgemin_hf.recipe.matched_rows import matched_rows
from edgemin_hf.recipe.raw_rows import packed_rows, token_counts, unpacked_rows
from edgemin_hf.recipe.run_models import RunModels
from edgemin_hf.recipe.schema import Product, Recipe, RecipeError, StageSettings, Student, student_shape
from edgemin_hf.recipe.teachers import teacher_logits, teacher_vectors, token_outputs
from edgemin_hf.tasks.base import PARTS, LabelLoss
from edgemin_hf.tasks.class_weights import label_loss
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.utils.cpus import processes_of_node, usable_cpus
from edgemin_hf.utils.hardware import cpu_flags
from edgemin_hf.utils.records import Json

GROUP_TIMEOUT = timedelta(days=7)
"""How long processes wait for each other: the first may export or augment for hours, and who dies ends all of them."""
AUGMENTED_ROWS = "train.parquet"
"""File of the training rows in the folder of a stage that leaves other ones."""
_UNPACKED_VALIDATION_SHARE = 0.05


class Context(RunModels):
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
        >>> context.task.metric_name, context.maker(Product.TEACHER).name, context.folder_with(Product.STUDENT).name
        ('accuracy', 'finetune', 'task_distill')
    """

    def __init__(self, recipe: Recipe, settings: Json, root: Path, output: Path) -> None:
        super().__init__(recipe, root, output)
        self.settings = settings
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.threads = recipe.threads or max(1, usable_cpus() // processes_of_node())
        torch.set_num_threads(self.threads)

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

    @cached_property
    def data(self) -> tuple[Dataset, Dataset]:
        """Training and validation rows of the task, as the teacher reads them."""
        return self.task.train_and_validation(self.root, self.teacher_tokenizer, self.label_ids, self.recipe.seed)

    @cached_property
    def label_loss(self) -> LabelLoss:
        """The loss with labels of whatever learns the task here."""
        return label_loss(self.task, self.root, self.label_ids, self.recipe.seed)

    @cached_property
    def cut_rows(self) -> dict[str, int]:
        """How many rows lose some of their text by the task's `max_length`, by the setting that names their table."""
        task, tokenizer = self.task, self.shapes.tokenizer
        parts = [part for part in PARTS if part != "validation" or not task.holds_out]
        counts = {task.field(part): task.cut_rows(task.table(self.root, part), tokenizer) for part in parts}
        return {name: count for name, count in counts.items() if count}

    @cached_property
    def student_data(self) -> tuple[Dataset, Dataset]:
        """The rows that a student is trained on and validated with: augmented where the recipe says so."""
        if self.maker(Product.ROWS) is None and not self.shapes.own_tokens:
            return self.data
        return self._student_rows(self.tokenizer)

    def _student_rows(self, tokenizer: PreTrainedTokenizerBase) -> tuple[Dataset, Dataset]:
        train, validation = (self.task.tokenized(table, tokenizer, self.label_ids) for table in self._tables)
        return train, validation

    @cached_property
    def _tables(self) -> tuple[Dataset, Dataset]:
        """The same rows as they are."""
        augmented = self.maker(Product.ROWS)
        train, validation = self.task.tables(self.root, self.recipe.seed)
        return train if augmented is None else self.task.read(self.folder(augmented) / AUGMENTED_ROWS), validation

    def rows_of(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return those rows in the tokens of the student that a stage trains: its own, where its vocabulary was cut."""
        with PartialState().main_process_first():
            if self.maker(Product.VOCABULARY, before=stage) is None:
                return self.student_data
            return self._student_rows(self.student_tokenizer(stage))

    def rows_with_teacher_logits(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return the same rows, and those without labels, with the teacher's logits, computed once for all stages.

        Of a ragged task, or one of vectors, they have their number among `token_outputs` instead, which the collator
        knows; of a task whose teacher runs beside the student they are as they are.
        """
        if self.task.teacher_beside:
            return self.rows_of(stage)
        if self.task.ragged:
            return self._numbered_rows(stage)
        if isinstance(self.task, SentenceEmbedding):
            return self._numbered_texts(stage)
        (train, validation), said = self.rows_of(stage), self._teacher_logits
        train = _with_logits(train, said["train"])
        if "validation" in said:
            validation = _with_logits(validation, said["validation"])
        if "unlabelled" in said:
            with PartialState().main_process_first():
                more = self._unlabelled_rows(self.student_tokenizer(stage))
            train = concatenate_datasets([train, _with_logits(more, said["unlabelled"])])
        return train, validation

    def _numbered_rows(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return the rows of a ragged task with their numbers among the teacher's outputs.

        Where a cut of the vocabulary divides words into other pieces, what counts in some rows may be other parts of
        their text: these are no training rows, and validation rows have no numbers then.
        """
        rows, start = [*self.rows_of(stage)], 0
        if self.task.unlabelled_files:
            with PartialState().main_process_first():
                rows.append(self._unlabelled_rows(self.student_tokenizer(stage)))
        numbered = list[Dataset]()
        for part, theirs in zip(rows, self._rows_of_outputs, strict=True):
            found = matched_rows(part, theirs)
            alike = np.flatnonzero(found >= 0)
            numbered.append(part.select(alike).add_column(TEACHER_ROW, list(found[alike] + start)))
            start += len(theirs)
        train, validation = concatenate_datasets([numbered[0], *numbered[2:]]), numbered[1]
        if not len(train):
            raise RecipeError(
                f"{stage.name}: rows that the teacher reads otherwise; expected: before a vocabulary's cut"
            )
        return train, validation if len(validation) == len(rows[1]) else rows[1]

    @cached_property
    def _rows_of_outputs(self) -> list[Dataset]:
        """The training rows, the validation rows and those without labels, as the teacher reads them."""
        more = [self._unlabelled_rows(self.tokenizer)] if self.task.unlabelled_files else []
        return [*self.student_data, *more]

    def _numbered_texts(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return texts, those of further files among them, with their numbers among the teacher's vectors."""
        train, validation = self.rows_of(stage)
        with PartialState().main_process_first():
            train = self._with_unlabelled(train, self.student_tokenizer(stage))
        train, validation = (
            rows.add_column(TEACHER_ROW, list(range(first, first + len(rows))))
            for rows, first in ((train, 0), (validation, len(train)))
        )
        return train, validation

    def _with_unlabelled(self, train: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        more = [self._unlabelled_rows(tokenizer)] if self.task.unlabelled_files else []
        return concatenate_datasets([train, *more])

    @cached_property
    def token_outputs(self) -> TokenOutputs:
        """What the teacher says of each counted token of the training rows, the validation rows, and further ones.

        Of a task of vectors, what its student learns of each text.
        """
        with PartialState().main_process_first():
            if isinstance(self.task, SentenceEmbedding):
                train, validation = self.data
                learned = self._with_unlabelled(train, self.teacher_tokenizer)
                rows = concatenate_datasets([learned, validation.select_columns(learned.column_names)])
                return teacher_vectors(self, self.task, rows, len(learned))
            return token_outputs(self, concatenate_datasets(self._rows_of_outputs))

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> PaddingCollator:
        """Return what makes batches of `rows_with_teacher_logits`."""
        flat = isinstance(self.task, SentenceEmbedding) or (self.task.ragged and not self.task.teacher_beside)
        return PaddingCollator(tokenizer, teacher=self.token_outputs if flat else None)

    @cached_property
    def _teacher_logits(self) -> dict[str, Tensor]:
        """What the teacher says of the training rows, the validation rows and those without labels."""
        with PartialState().main_process_first():
            (train, validation), tables = self.student_data, self._tables
            said = {"train": teacher_logits(self, tables[0], train, "train")}
            if self.has_teacher:  # a table need not predict what is chosen by its labels
                said["validation"] = teacher_logits(self, tables[1], validation, "validation")
            if self.task.unlabelled_files:
                table, rows = self.task.unlabelled_table(self.root), self._unlabelled_rows(self.tokenizer)
                said["unlabelled"] = teacher_logits(self, table, rows, "unlabelled")
            return said

    def _unlabelled_rows(self, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        table = self.task.unlabelled_table(self.root)
        return self.task.tokenized(table, tokenizer, self.label_ids, with_labels=False)

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

    # New students, whose narrower tables are cut by the data.

    def new_student(self, shape: Student, teacher: PreTrainedModel, head: AutoClass | None = None) -> PreTrainedModel:
        """Make a student of a shape from its teacher, or from its checkpoint."""
        set_seed(self.recipe.seed)
        if shape.checkpoint is not None:
            folder, width = self.checkpoint_folder(shape), self.task.embedding_width if self.recipe.task else None
            student = student_from_checkpoint(teacher, self.tokenizer, folder, shape.head, width)
        else:
            counts = None
            if shape.embedding_size is not None:  # the texts that the student is for, else what it learns from
                rows = self.raw_text[0] if self.recipe.task is None else self.data[0]
                counts = token_counts(rows, teacher.config.vocab_size)
            student = create_student(
                teacher,
                **student_shape(shape, self.recipe.task),
                initialization=shape.initialization,
                token_counts=counts,
            )
        task = self.recipe.task
        if task is not None and (head or self.head) is task.auto_class:
            task.configure(student.config)
        return student

    def new_task_student(self) -> PreTrainedModel:
        """Make a student that learns the task, of the teacher's or an assistant's weights, or of its checkpoint's.

        A checkpoint's may have tokens of its own, and needs no teacher.
        """
        shape, assistant = self.recipe.student, self.maker(Product.ASSISTANT)
        if shape.checkpoint is None:
            return self.new_student(shape, self.load(self.folder(assistant) if assistant else self.teacher_folder))
        set_seed(self.recipe.seed)
        folder = self.checkpoint_folder(shape)
        labels = {name: value for name, value in self.labels.items() if name != "num_labels"}  # which id2label tells
        pooling = {} if shape.head == "auto" else {POOLING: shape.head}
        config = self.shapes.student
        model = load_pruned(folder, self.head, ignore_mismatched_sizes=True, **labels, **pooling, **head_of(config))
        keep_sentence_files(model.config, config)
        self.task.configure(model.config)
        return model.train()


def _with_logits(rows: Dataset, logits: Tensor) -> Dataset:
    return rows.add_column(TEACHER_LOGITS, list(logits.numpy()))
