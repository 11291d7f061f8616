"""The rows of a run's task: as the teacher reads them, and as a student does. It knows no stage by name."""

from __future__ import annotations

from functools import cached_property

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from edgemin_hf.recipe.run_models import RunModels
from edgemin_hf.recipe.schema import Product, StageSettings
from edgemin_hf.tasks.base import PARTS
from edgemin_hf.tasks.class_weights import label_loss
from edgemin_hf.tasks.head import LabelLoss

AUGMENTED_ROWS = "train.parquet"
"""File of the training rows in the folder of a stage that leaves other ones."""


class TaskRows(RunModels):
    """The rows of a run's task, each table read when a stage first asks for it. See `RunModels`."""

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
        train, validation = (self.task.tokenized(table, tokenizer, self.label_ids) for table in self.tables)
        return train, validation

    @cached_property
    def tables(self) -> tuple[Dataset, Dataset]:
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

    def unlabelled_rows(self, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Return the rows without labels in a tokenizer's tokens."""
        table = self.task.unlabelled_table(self.root)
        return self.task.tokenized(table, tokenizer, self.label_ids, with_labels=False)
