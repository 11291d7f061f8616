"""Texts without labels, to predict their masked tokens: masked anew in each epoch, or always alike to be measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.corpus import check_packable
from edgemin_hf.data.masked_rows import IN_TURN, MaskingCollator, masked_rows, packed_rows
from edgemin_hf.data.masking import Collation, EpochOfMasks
from edgemin_hf.data.sources import files_of, notes_on_source
from edgemin_hf.data.text_tables import distinct_texts, read_texts
from edgemin_hf.data.tokenization import count_cut, tokenize
from edgemin_hf.tasks.base import Files, Part, Split
from edgemin_hf.tasks.checks import common_rows
from edgemin_hf.tasks.splits import held_out
from edgemin_hf.tasks.table_task import Labels, TableTask

_SHORTEST = 8
"""Tokens of the shortest row: special ones, and some to mask."""


@dataclass
class MaskedTexts(TableTask, ABC):
    """A task that predicts masked tokens of texts.

    Texts are .txt files with a text a line, or tables; each different text counts once. Those that are trained on are
    masked anew in each epoch, as BERT does it; of those that are measured the same tokens are masked in every run, each
    with the mask token.

    Attributes:
        text_column: Name of the column of a table that holds the texts.
        split_sentences: Whether .txt, and .txt.zst, hold documents between blank lines, whose sentences are the texts.
        pack: Whether texts to train on are joined and cut into rows of `max_length` tokens; else each is a row, cut
            after as many.
        mask_probability: Share of a text's tokens that are to be predicted, at least one. In training 80% of them
            become the mask token, 10% any token, and 10% stay, other ones in each epoch; to measure, the same tokens
            become the mask token in every run.
        pseudo_perplexity_texts: Texts of the test table, the first ones, each of whose tokens is masked in turn: a pass
            of every model a token.
    """

    text_column: str = "text"
    split_sentences: bool = False
    pack: bool = False
    mask_probability: float = 0.15
    pseudo_perplexity_texts: int = 256

    compares_label_names: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unlabelled_files:
            raise ValueError(f"unlabelled_files: {self.unlabelled_files}; allowed: none for {self.type}")
        if not 0 < self.mask_probability < 1:
            raise ValueError(f"mask_probability: {self.mask_probability}; allowed: above 0 and below 1")
        if self.pseudo_perplexity_texts < 1:
            raise ValueError(f"pseudo_perplexity_texts: {self.pseudo_perplexity_texts}; allowed: 1 or more")
        if self.max_length < _SHORTEST:
            raise ValueError(f"max_length: {self.max_length}; allowed: {_SHORTEST} or more")

    @property
    def labels_column(self) -> str:
        """No column: the texts are their own labels."""
        return ""

    @property
    @abstractmethod
    def masks_in_turn(self) -> bool:
        """Whether a metric asks for tokens that are masked one by one."""

    def _texts_of(self, paths: list[Path]) -> Dataset:
        texts = (read_texts(path, [self.text_column], split_sentences=self.split_sentences) for path in paths)
        return distinct_texts(paths, texts, self.text_column)

    def read(self, path: Path) -> Dataset:
        """Read texts to be measured, each different one once; none of them is masked token by token.

        Raises:
            ValueError: If the file can't be read, lacks the column, or holds no text.
        """
        return _with_fixed_masks(self._texts_of([path]))

    def table(self, root: Path, part: Part) -> Dataset:
        """Read the texts to train on, whose masks are not fixed; or to be measured, some of the test token by token."""
        if part == "train":
            return self._texts_of(self.train_paths(root))
        asked = part == "test" and self.masks_in_turn
        return _with_fixed_masks(self._texts_of([self.path(root, part)]), self.pseudo_perplexity_texts * asked)

    def train_paths(self, root: Path) -> list[Path]:
        """Return the files of training texts: those that are named, each read by itself, or that of a split."""
        return super().train_paths(root) if self.dataset else files_of(root, self.train_file)

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training texts and the validation texts."""
        train = self.table(root, "train")
        if not self.holds_out:
            return train, self.table(root, "validation")
        train, validation = held_out(train, self.validation_share, seed)
        return train, _with_fixed_masks(validation)

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check that all texts can be read, and return how many there are. See `TableTask.check`."""
        self.settle_metrics(root, {})
        parts: list[Part] = ["train", "test"] if self.holds_out else ["train", "validation", "test"]
        readers: dict[str, Callable[[], Dataset]] = {
            self.field(part): partial(self.table, root, part) for part in parts
        }
        for name, named in self.further_tests.items():
            readers[f"further_tests.{name}"] = partial(self._named, root, named)
        notes, texts = [], dict[str, list[str]]()
        for name, read in readers.items():
            try:
                texts[name] = read()[self.text_column][:]
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            if len(texts[name]) < 2:
                raise ValueError(f"{name}: 1 different text; expected: 2 or more")
            train = texts[self.field("train")]
            if texts[name] is not train and len(texts[name]) == len(train) and set(texts[name]) == set(train):
                raise ValueError(f"{name}: the texts of {self.field('train')}; expected: other texts")
            notes.append(f"{name}: {len(texts[name]):,} different texts")
        return [*notes, *notes_on_source(self.path(root, "test")), *common_rows(texts)]

    def _named(self, root: Path, named: Files | Split) -> Dataset:
        return self.read(self.named_path(root, named))

    def check_rows(self, path: Path) -> None:
        """Check that a file holds texts; ValueError where not."""
        self._texts_of([path])

    def names_in(self, table: Dataset) -> list[str]:
        """Return nothing: the names of the answers are the vocabulary's."""
        return []

    def labels(self, root: Path) -> list[str]:
        """Return nothing likewise."""
        return []

    def model_kwargs(self, label_ids: Mapping[str, int]) -> dict[str, object]:
        """Return nothing likewise."""
        return {}

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return nothing: labels are made where tokens are masked."""
        return []

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check nothing likewise."""

    def texts_in(self, table: Dataset) -> Iterator[str]:
        """Yield a table's texts."""
        yield from table[self.text_column]

    def fitted(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """Return the tokenizer; ValueError of one that can't mask, or can't join texts where they are packed."""
        if tokenizer.mask_token is None:
            raise ValueError(f"{type(tokenizer).__name__} without a mask token; allowed: a tokenizer with one")
        if self.pack:
            check_packable(tokenizer)
        return tokenizer

    def cut_rows(self, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many of a table's texts are cut by `max_length`: none that are packed."""
        packed = self.pack and IN_TURN not in table.column_names
        return 0 if packed else count_cut(self.texts_in(table), tokenizer, self.max_length)

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise texts: those to be measured into rows with fixed masks, others into rows without masks.

        Returns:
            The tokenizer's columns; and where masks are fixed what `masked_rows` adds.
        """
        if IN_TURN in table.column_names:
            return masked_rows(table, self.text_column, tokenizer, self.max_length, self.mask_probability)
        if self.pack:
            return packed_rows(table, self.text_column, tokenizer, self.max_length)
        return tokenize(table, self.text_column, tokenizer, self.max_length)

    def collation(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> Collation | None:
        """Return a collator that masks what is not masked yet, otherwise in each epoch."""
        collator = MaskingCollator(tokenizer, share=self.mask_probability, seed=seed)
        return Collation(collator, [EpochOfMasks(collator)])


def _with_fixed_masks(table: Dataset, asked: int = 0) -> Dataset:
    """Mark texts as to be measured, the first so many of them token by token too."""
    return table.add_column(IN_TURN, [number < asked for number in range(len(table))])
