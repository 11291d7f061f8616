"""The stage `augment`: the task's training rows, and copies of them with other words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Literal

from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from pydantic.dataclasses import dataclass
from transformers import AutoConfig, AutoModelForMaskedLM

from edgemin_hf.data.augmentation import AugmentationConfig, augment_texts, check_word_tokenizer
from edgemin_hf.data.masked_lm import load_masked_lm
from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.modeling.tokenizers import load_tokenizer
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimate, flops_per_token
from edgemin_hf.recipe.fingerprint import content, model_inputs
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.task_rows import AUGMENTED_ROWS
from edgemin_hf.tasks.text import TextTask
from edgemin_hf.utils.atomic_files import write_atomic

_TEXTS_A_PART = 512


@dataclass(config=STRICT)
class Augment(WritingStage):
    """Add copies of the training rows in which words are replaced, for all stages that train the student on the task.

    See `AugmentationConfig`, whose seed is the recipe's. Without `model` the teacher predicts the words, as the recipe
    names it.

    Attributes:
        copies: Copies of a row; equal ones count once.
        probability: Probability that a word of a copy is replaced.
        candidates: Words that a replacement is drawn from.
        model: Masked language model that predicts them, a Hub id or folder; None is the recipe's teacher.
        revision: Branch, tag or commit of a `model` on the Hub; None takes the newest.
        vectors: File of word vectors (GloVe's format), for words of several tokens; without one these stay.

    Example:
        >>> from edgemin_hf.recipe.stages import Augment
        >>> Augment(copies=5).augmentation(seed=1, vectors=None).copies
        5
    """

    stage: Literal["augment"] = "augment"
    copies: int = 20
    probability: float = 0.4
    candidates: int = 15
    model: str | None = None
    revision: str | None = None
    vectors: str | None = None
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.MODEL)
    leaves: ClassVar[tuple[Product, ...]] = (Product.ROWS,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.ROWS, Product.TASK_STUDENT)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augmentation(seed=0, vectors=self.vectors)
        if self.revision is not None and self.model is None:
            raise ValueError(f"revision: {self.revision}; allowed: beside model alone")

    def augmentation(self, seed: int, vectors: str | None) -> AugmentationConfig:
        """Return the settings of the augmentation alone."""
        return AugmentationConfig(self.copies, self.probability, self.candidates, self.model, vectors, seed)

    def check(self, context: Context) -> None:
        """Check that the task's examples are texts, that its model predicts words, and that its vectors are there."""
        if not isinstance(context.task, TextTask):
            raise ValueError(f"stage: augment for {context.task.type}; allowed: for tasks on whole texts")
        model, _ = self._words(context)
        found = context.shapes.checkpoint(*self._words(context), weights=False)
        config = AutoConfig.from_pretrained(found.path)
        if not configured_for(config, AutoModelForMaskedLM):
            raise ValueError(
                f"model: {model}, a {', '.join(config.architectures or ['model'])}; "
                "allowed: a ...ForMaskedLM, which predicts words"
            )
        check_word_tokenizer(load_tokenizer(found.path, config))
        if self.vectors is not None and not (context.root / self.vectors).is_file():
            raise ValueError(f"vectors: {self.vectors}, which is no file; allowed: a text file of word vectors")

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the model and the vectors that tell the words."""
        vectors = None if self.vectors is None else content(context.root / self.vectors)
        return {"words": model_inputs(context, *self._words(context)), "vectors": vectors}

    def _words(self, context: Context) -> tuple[str, str | None]:
        """Return the model that predicts the words, and its revision."""
        teacher = context.recipe.teacher
        if self.model is not None:
            return self.model, self.revision
        assert teacher.model is not None  # noqa: S101 - the order of the stages is checked
        return teacher.model, teacher.revision

    def estimate(self, context: Context) -> Estimate:
        """Return what it will cost: each token is masked alone, and all of its text read for it."""
        rows, tokens = context.estimator.task_text
        return context.estimator.passes(rows * tokens**2 * flops_per_token(shape_of(context.shapes.teacher)))

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write the training rows and their copies as one table; the parts that a killed run had finished stay."""
        task = context.task
        assert isinstance(task, TextTask)  # noqa: S101 - `check`
        table = task.train_table(context.root, context.recipe.seed)
        tables = [table]
        for column in task.text_columns:
            copies = self._copies(context, table[column], column, work)
            rows, texts = [row for row, _ in copies], [text for _, text in copies]
            tables.append(table.select(rows).remove_columns(column).add_column(column, texts).cast(table.features))
        augmented: Dataset = concatenate_datasets(tables)
        augmented.to_parquet(folder / AUGMENTED_ROWS)
        return Outcome(notes=(f"{len(table):,} rows became {len(augmented):,}",))

    def _copies(self, context: Context, texts: list[str], column: str, work: Path) -> list[tuple[int, str]]:
        """Return the copies of a column's texts, each with the number of its row."""
        checkpoint = (
            context.base_folder if self.model is None else context.shapes.checkpoint(*self._words(context)).path
        )
        tokenizer, model = load_tokenizer(checkpoint), load_masked_lm(checkpoint)
        model.to(PartialState().device)
        vectors = None if self.vectors is None else str(context.root / self.vectors)
        copies: list[tuple[int, str]] = []
        for part, start in enumerate(range(0, len(texts), _TEXTS_A_PART)):
            file = work / f"{column}-{part}.json"
            if not file.is_file():
                settings = self.augmentation(context.recipe.seed + part, vectors)
                found = augment_texts(texts[start : start + _TEXTS_A_PART], tokenizer, model, settings)
                write_atomic(file, json.dumps(found))
            copies += [(start + row, text) for row, text in json.loads(file.read_text(encoding="utf-8"))]
        return copies
