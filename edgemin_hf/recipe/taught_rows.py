"""The rows of a run's task with what its teachers say of them. It knows no stage by name."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.padding import TEACHER_LOGITS, TEACHER_ROW, PaddingCollator
from edgemin_hf.distillation.token_outputs import TokenOutputs
from edgemin_hf.recipe.matched_rows import matched_rows
from edgemin_hf.recipe.schema import RecipeError, StageSettings
from edgemin_hf.recipe.task_rows import TaskRows
from edgemin_hf.recipe.teachers import teacher_logits, teacher_vectors, token_outputs


class TaughtRows(TaskRows):
    """The rows of a run's task with what its teachers say of them. See `RunModels`.

    What they say of a text is a column of it; of each token, or a vector, a row of a flat file, whose number stands
    beside the text.
    """

    def rows_with_teacher_logits(self, stage: StageSettings) -> tuple[Dataset, Dataset]:
        """Return the same rows, and those without labels, with the teacher's logits, computed once for all stages.

        Of a ragged task, or one of vectors, they have their number among `token_outputs` instead, which the collator
        knows; of a task whose teacher runs beside the student they are as they are.
        """
        if self.task.teacher_beside:
            return self.rows_of(stage)
        if self.task.ragged:
            return self._numbered_rows(stage)
        if self.task.gives_vectors:
            return self._numbered_texts(stage)
        (train, validation), said = self.rows_of(stage), self._teacher_logits
        train = _with_logits(train, said["train"])
        if "validation" in said:
            validation = _with_logits(validation, said["validation"])
        if "unlabelled" in said:
            with PartialState().main_process_first():
                more = self.unlabelled_rows(self.student_tokenizer(stage))
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
                rows.append(self.unlabelled_rows(self.student_tokenizer(stage)))
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
        more = [self.unlabelled_rows(self.tokenizer)] if self.task.unlabelled_files else []
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
        more = [self.unlabelled_rows(tokenizer)] if self.task.unlabelled_files else []
        return concatenate_datasets([train, *more])

    @cached_property
    def token_outputs(self) -> TokenOutputs:
        """What the teacher says of each counted token of the training rows, the validation rows, and further ones.

        Of a task of vectors, what its student learns of each text.
        """
        with PartialState().main_process_first():
            if self.task.gives_vectors:
                train, validation = self.data
                learned = self._with_unlabelled(train, self.teacher_tokenizer)
                rows = concatenate_datasets([learned, validation.select_columns(learned.column_names)])
                return teacher_vectors(self, rows, len(learned))
            return token_outputs(self, concatenate_datasets(self._rows_of_outputs))

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> PaddingCollator:
        """Return what makes batches of `rows_with_teacher_logits`."""
        flat = self.task.gives_vectors or (self.task.ragged and not self.task.teacher_beside)
        return PaddingCollator(tokenizer, teacher=self.token_outputs if flat else None)

    @cached_property
    def _teacher_logits(self) -> dict[str, Tensor]:
        """What the teacher says of the training rows, the validation rows and those without labels."""
        with PartialState().main_process_first():
            (train, validation), tables = self.student_data, self.tables
            said = {"train": teacher_logits(self, tables[0], train, "train")}
            if self.has_teacher:  # a table need not predict what is chosen by its labels
                said["validation"] = teacher_logits(self, tables[1], validation, "validation")
            if self.task.unlabelled_files:
                table, rows = self.task.unlabelled_table(self.root), self.unlabelled_rows(self.tokenizer)
                said["unlabelled"] = teacher_logits(self, table, rows, "unlabelled")
            return said


def _with_logits(rows: Dataset, logits: Tensor) -> Dataset:
    return rows.add_column(TEACHER_LOGITS, list(logits.numpy()))
