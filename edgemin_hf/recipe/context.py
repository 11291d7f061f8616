"""A recipe at work: its machine and its data. It knows no stage by name."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from huggingface_hub.constants import HF_HOME

from edgemin_hf.data.corpus import TokenBlocks, token_stream
from edgemin_hf.data.tables import read_sentences, read_table
from edgemin_hf.data.tokenization import tokenize
from edgemin_hf.distillation.task import TEACHER_LOGITS
from edgemin_hf.recipe.estimate import Estimator
from edgemin_hf.recipe.run_models import RunModels
from edgemin_hf.recipe.schema import Product, Recipe, RecipeError
from edgemin_hf.recipe.teachers import teacher_logits
from edgemin_hf.utils.cpus import processes_of_node, usable_cpus
from edgemin_hf.utils.hardware import cpu_flags
from edgemin_hf.utils.records import Json

CACHE = Path(HF_HOME) / "edgemin"
"""Where tokenised raw text is kept, for all runs."""
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
        >>> context.task.metric, context.maker(Product.TEACHER).name, context.folder_with(Product.STUDENT).name
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
    def student_data(self) -> tuple[Dataset, Dataset]:
        """The rows that a student is trained on and validated with: augmented where the recipe says so."""
        if self.maker(Product.ROWS) is None and not self.shapes.own_tokens:
            return self.data
        train, validation = (self.task.tokenized(table, self.tokenizer, self.label_ids) for table in self._tables)
        return train, validation

    @cached_property
    def _tables(self) -> tuple[Dataset, Dataset]:
        """The same rows as they are."""
        task, augmented, seed = self.task, self.maker(Product.ROWS), self.recipe.seed
        if augmented is None:
            return task.train_table(self.root, seed), task.validation_table(self.root, seed)
        return read_table(self.folder(augmented) / AUGMENTED_ROWS), task.validation_table(self.root, seed)

    @cached_property
    def data_with_teacher_logits(self) -> tuple[Dataset, Dataset]:
        """The same rows, and those without labels, with the teacher's logits, computed once for all stages."""
        with PartialState().main_process_first():
            (train, validation), tables = self.student_data, self._tables
            train = self._with_logits(train, tables[0], "train")
            if self.has_teacher:  # a table need not predict what is chosen by its labels
                validation = self._with_logits(validation, tables[1], "validation")
            if self.task.unlabelled_files:
                table = self.task.unlabelled_table(self.root)
                rows = self.task.tokenized(table, self.tokenizer, self.label_ids, with_labels=False)
                train = concatenate_datasets([train, self._with_logits(rows, table, "unlabelled")])
            return train, validation

    def _with_logits(self, rows: Dataset, table: Dataset, part: str) -> Dataset:
        return rows.add_column(TEACHER_LOGITS, list(teacher_logits(self, table, rows, part).numpy()))

    @cached_property
    def raw_text(self) -> tuple[Dataset | TokenBlocks, Dataset | TokenBlocks]:
        """Training and validation examples of stage 1."""
        raw = self.recipe.raw_text
        assert raw is not None  # noqa: S101 - the order of the stages is checked
        if raw.pack:
            try:
                stream = token_stream(raw.source(self.root), self.tokenizer, CACHE)
                return TokenBlocks(stream, self.tokenizer, raw.max_length).split(raw.validation_blocks)
            except ValueError as error:  # how many blocks there are is known when the text has been read
                raise RecipeError(f"raw_text: {error}") from None
        table = read_sentences([self.root / file for file in raw.files], raw.text_column)
        sentences = tokenize(table, raw.text_column, self.tokenizer, raw.max_length)
        if self.recipe.task is not None:
            return sentences, self.data[1]
        split = sentences.train_test_split(test_size=_UNPACKED_VALIDATION_SHARE, seed=self.recipe.seed)
        return split["train"], split["test"]

    @property
    def packs(self) -> bool:
        """Whether raw text is packed into blocks of one length."""
        return self.recipe.raw_text is not None and self.recipe.raw_text.pack
