"""A recipe at work: its machine, its raw text, and the students made of its data. It knows no stage by name."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, set_seed

from edgemin_hf.data.corpus import TokenBlocks
from edgemin_hf.modeling.auto_class import AutoClass
from edgemin_hf.modeling.embedder_files import head_of, keep_sentence_files
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.modeling.pooling import POOLING
from edgemin_hf.modeling.student import create_student, student_from_checkpoint
from edgemin_hf.recipe.estimate import Estimator
from edgemin_hf.recipe.progress import Line
from edgemin_hf.recipe.raw_rows import packed_rows, token_counts, unpacked_rows
from edgemin_hf.recipe.schema import Product, Recipe, Student, student_shape
from edgemin_hf.recipe.taught_rows import TaughtRows
from edgemin_hf.utils.cpus import processes_of_node, usable_cpus
from edgemin_hf.utils.hardware import cpu_flags
from edgemin_hf.utils.records import Json

GROUP_TIMEOUT = timedelta(days=7)
"""How long processes wait for each other: the first may export or augment for hours, and who dies ends all of them."""
_UNPACKED_VALIDATION_SHARE = 0.05


class Context(TaughtRows):
    """A recipe at work: its data, tokenizer and models, each loaded when a stage first asks for it.

    Args:
        recipe: The recipe.
        settings: The plain settings that it was made from.
        root: The folder that its paths are relative to.
        output: The folder of the run.

    Attributes:
        line: Tells how far the stage at work is.

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
        self.settings, self.line = settings, Line()
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

    # Raw text.

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
