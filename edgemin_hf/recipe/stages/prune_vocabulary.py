"""The stage `prune_vocabulary`: the student without the tokens that its texts never use, and its own tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import field
from itertools import chain, islice
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.data.tables import Text, read_sentences
from edgemin_hf.modeling.tokenizers import fitted
from edgemin_hf.pruning.coverage import split_share, unknown_share
from edgemin_hf.pruning.vocabulary import check_cuttable, prune_vocabulary
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.fingerprint import raw_text_inputs
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Product, RecipeError
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.report.records import Coverage, VocabularyCut
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.training.record import trainings_before
from edgemin_hf.utils.edgemin_config import EdgeminConfig

_BATCH = 1024
_TOLD_TEXTS = 10_000
"""Texts of the raw text that the record tells of."""


@dataclass(config=STRICT)
class PruneVocabulary(WritingStage):
    """Cut the student's vocabulary to the tokens of the task's training texts: before or after it is quantised.

    See `prune_vocabulary`. The student then has a tokenizer of its own. What that means for the validation texts, and
    for the recipe's raw text where it is in files, stands in the record and in the model card.

    Attributes:
        files: Further texts whose tokens stay (.txt, .jsonl, .parquet, also .zst), relative to the recipe.
        text_column: Column of a table that holds the text.
        min_count: How often a token must occur to stay.

    Example:
        >>> from edgemin_hf.recipe.stages import PruneVocabulary
        >>> PruneVocabulary(min_count=2).settings()["min_count"]
        2
    """

    stage: Literal["prune_vocabulary"] = "prune_vocabulary"
    hub_tag: ClassVar[str | None] = "pruning"
    files: list[str] = field(default_factory=list)
    text_column: str = "text"
    min_count: Count = 1
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.STUDENT)
    leaves: ClassVar[tuple[Product, ...]] = (Product.STUDENT, Product.VOCABULARY)
    not_after: ClassVar[tuple[Product, ...]] = (Product.VOCABULARY, Product.GRAPHS)
    minutes: ClassVar[float] = 0.2

    def check(self, context: Context) -> None:
        """Check that the further texts can be read, that the tokenizer can be cut, and that some token stays."""
        self._texts(context).check()
        check_cuttable(context.shapes.tokenizer)
        # By 1 every text leaves its tokens; else all is counted, up to the first that occurs often enough.
        if self.min_count > 1 and not self._leaves_some(context):
            raise ValueError(f"min_count: {self.min_count}, which no token of the texts reaches; allowed: fewer")

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the further texts, and the raw text that the record tells of, by their content."""
        raw = context.recipe.raw_text
        told = raw_text_inputs(context) if raw is not None and raw.files else {}
        return {"files": self._texts(context).fingerprint(), **told}

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write student and tokenizer.

        Raises:
            RecipeError: If the tokenizer is of a kind that can't be cut, or no token is used often enough.
        """
        student = context.student(self)
        assert student is not None  # noqa: S101 - the order of the stages is checked
        tokenizer = fitted(context.tokenizer, student.config)
        before = student.config.vocab_size
        texts = tqdm(self._all_texts(context), desc="Texts", unit=" texts")
        try:
            cut = prune_vocabulary(student, tokenizer, texts, min_count=self.min_count)
        except ValueError as error:
            raise RecipeError(f"{self.name}.{error}") from error
        student.save_pretrained(folder)
        cut.save_pretrained(folder)
        EdgeminConfig(trainings=trainings_before(student)).save_pretrained(folder)
        after = student.config.vocab_size
        note = f"{before:,} tokens became {after:,}" if after < before else f"all {before:,} tokens are used: none went"
        told = tuple(_coverage(name, tokenizer, cut, texts) for name, texts in _told_texts(context).items())
        notes = (
            f"{one.texts}: {one.split:.2%} of the pieces became smaller, {one.unknown:.2%} unknown" for one in told
        )
        return Outcome(notes=(note, *notes), vocabulary=VocabularyCut(before, after, told))

    def _leaves_some(self, context: Context) -> bool:
        tokenizer = context.shapes.tokenizer
        texts, counts = self._all_texts(context), Counter[int]()
        while batch := list(islice(texts, _BATCH)):
            for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
                counts.update(ids)
            if max(counts.values(), default=0) >= self.min_count:
                return True
        return False

    def _texts(self, context: Context) -> TextFiles:
        return TextFiles([context.root / file for file in self.files], self.text_column)

    def _all_texts(self, context: Context) -> Iterator[str]:
        own = _sides(context.task.texts_in(context.task.train_table(context.root, context.recipe.seed)))
        prompt = context.task.prompt if isinstance(context.task, SentenceEmbedding) else ""
        return (prompt + text for text in chain(own, (piece.text for piece in self._texts(context).pieces())))


def _told_texts(context: Context) -> dict[str, list[str]]:
    """Return the texts that the record tells of, by what they are; no training texts, by which the cut was made."""
    task, raw = context.task, context.recipe.raw_text
    tables = task.tables(context.root, context.recipe.seed)
    train, validation = (list(_sides(task.texts_in(table))) for table in tables)
    found, own = {"validation texts": validation}, set(train)
    if raw is not None and raw.files:
        files = [context.root / file for file in raw.files]
        if raw.pack:
            texts = (piece.text for piece in TextFiles(files, raw.text_column).pieces())
        else:
            texts = iter(read_sentences(files, raw.text_column)[raw.text_column])
        if others := list(islice((text for text in texts if text not in own), _TOLD_TEXTS)):
            found["raw text"] = others
    return found


def _sides(texts: Iterable[Text]) -> Iterator[str]:
    """Yield texts, of pairs each side."""
    for text in texts:
        yield from (text,) if isinstance(text, str) else text


def _coverage(name: str, before: PreTrainedTokenizerBase, after: PreTrainedTokenizerBase, texts: list[str]) -> Coverage:
    return Coverage(name, split_share(before, after, texts), unknown_share(after, texts))
