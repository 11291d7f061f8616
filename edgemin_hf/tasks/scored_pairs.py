"""Texts to train on, and pairs of texts with scores to choose and measure by: tables of tasks that give vectors."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.sources import files_of, notes_on_source
from edgemin_hf.data.tables import check_table, notes_on, read_table, values_of
from edgemin_hf.data.text_tables import distinct_texts, read_texts
from edgemin_hf.data.tokenization import count_cut, tokenize
from edgemin_hf.modeling.embedder_files import prompts_of
from edgemin_hf.tasks.base import Files, Part, Split
from edgemin_hf.tasks.checks import common_rows
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.retrieval_files import Retrieval, read_retrieval
from edgemin_hf.tasks.table_task import Labels, TableTask

SCORES = "scores"
"""Column of tokenised pairs that holds their scores, in each of a pair's two rows."""
PLACES = "places"
"""Column of tokenised pairs that holds the numbers of their texts, since rows may come in any order."""
_RETRIEVAL = ("corpus_file", "queries_file", "qrels_file")
_SHORTEST = 3
"""Tokens: one of a text, and two special ones."""


@dataclass
class ScoredPairs(TableTask, ABC):
    """A task that is trained on texts alone, and measured on pairs of them with scores.

    Attributes:
        train_file: Texts to train on: .txt with a text a line, or a table with columns of texts; each different one is
            learned once.
        split_sentences: Whether .txt, and .txt.zst, hold documents between blank lines, whose sentences (of three words
            or more) are the texts.
        validation_file: Pairs and scores for every choice; there must be one.
        text_column: Name of the column that holds the first text of a pair.
        text_pair_column: Name of the column that holds the second text.
        label_column: Name of the column that holds the score, a number: the more alike, the higher.
        train_columns: Names of the columns of training tables that hold texts; [] takes those of pairs, as far as a
            table has them, else its column `text`.
        unlabelled_files: Further texts to train on, as `train_file`.
        prompt: What stands before every text, and becomes the student's default prompt; a teacher that has one asks for
            the same.
        corpus_file: Texts to find in the final evaluation: a table with the columns _id, text and, where they have one,
            title.
        queries_file: What the texts are looked for by: a table with the columns _id and text.
        qrels_file: Which texts are relevant, for nDCG@10: a table with the columns query-id, corpus-id and score.
        retrieval_k: How many of the texts that the teacher ranks first are to be found (recall@k).
    """

    text_column: str = "sentence1"
    text_pair_column: str = "sentence2"
    label_column: str = "score"
    train_columns: list[str] = field(default_factory=list)
    split_sentences: bool = False
    prompt: str = ""
    corpus_file: str | None = None
    queries_file: str | None = None
    qrels_file: str | None = None
    retrieval_k: int = 10

    answer: ClassVar[Answer] = "score"
    compares_label_names: ClassVar[bool] = False
    learns_labels: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.holds_out:
            raise ValueError(f"{self.field('validation')}: None; expected: a table of pairs with scores")
        pair = [self.text_column, self.text_pair_column, self.label_column]
        if len(set(pair)) < len(pair):
            raise ValueError(f"text_column, text_pair_column, label_column: {', '.join(pair)}; expected: three columns")
        if (self.corpus_file is None) != (self.queries_file is None) or (self.qrels_file and not self.corpus_file):
            told = ", ".join(f"{name}: {getattr(self, name)}" for name in _RETRIEVAL)
            raise ValueError(f"{told}; allowed: corpus_file with queries_file, and qrels_file beside these")
        if self.retrieval_k < 1:
            raise ValueError(f"retrieval_k: {self.retrieval_k}; allowed: 1 or more")
        if self.max_length < _SHORTEST:
            raise ValueError(f"max_length: {self.max_length}; allowed: {_SHORTEST} or more")

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the scores."""
        return self.label_column

    def _distinct(self, paths: list[Path]) -> Dataset:
        """Read files of training texts: each different text once, under the name of the first text of a pair."""
        pair = (self.text_column, self.text_pair_column)
        texts = (read_texts(path, self.train_columns, pair, split_sentences=self.split_sentences) for path in paths)
        return distinct_texts(paths, texts, self.text_column)

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training texts, and the validation pairs."""
        return self.table(root, "train"), self.table(root, "validation")

    def table(self, root: Path, part: Part) -> Dataset:
        """Read the training texts, or pairs."""
        return self._distinct(self.train_paths(root)) if part == "train" else super().table(root, part)

    def train_paths(self, root: Path) -> list[Path]:
        """Return the files of training texts: those that are named, each read by itself, or that of a split."""
        return super().train_paths(root) if self.dataset else files_of(root, self.train_file)

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the further texts, but for those that are training texts already; ValueError where none is left."""
        paths, known = files_of(root, self.unlabelled_files), set(self.table(root, "train")[self.text_column])
        further = self._distinct(paths)
        new = [row for row, text in enumerate(further[self.text_column]) if text not in known]
        if not new:
            raise ValueError(f"{paths[0]}, whose texts are all training texts; allowed: a file with others")
        return further.select(new)

    def cut_rows(self, table: Dataset, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many of a table's texts, those of pairs one by one, are cut by `max_length` behind the prompt."""
        return count_cut((self.prompt + text for text in self.texts_in(table)), tokenizer, self.max_length)

    def _is_pairs(self, table: Dataset) -> bool:
        return self.text_pair_column in table.column_names

    def texts_in(self, table: Dataset) -> Iterator[str]:
        """Yield a table's texts, of pairs the two one after the other."""
        columns = [self.text_column, *([self.text_pair_column] if self._is_pairs(table) else [])]
        sides = zip(*(map(str, values_of(table, column)) for column in columns), strict=True)
        return (text for row in sides for text in row)

    def tokenized(
        self,
        table: Dataset,
        tokenizer: PreTrainedTokenizerBase,
        labels: Mapping[str, int],
        *,
        with_labels: bool = True,
    ) -> Dataset:
        """Tokenise texts, a row each, those of a pair one after the other.

        Returns:
            The tokenizer's columns; "labels", which are NaN; of pairs with scores also these.
        """
        texts = [self.prompt + text for text in self.texts_in(table)]
        rows = Dataset.from_dict({"text": texts, "labels": [float("nan")] * len(texts)})
        rows = tokenize(rows, "text", tokenizer, self.max_length)
        if not (with_labels and self._is_pairs(table)):
            return rows
        scores = np.repeat(np.array(self.encoded(table, labels)), 2)
        return rows.add_column(SCORES, scores).add_column(PLACES, np.arange(len(rows)))

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check texts and pairs, and return what is worth knowing of them. See `TableTask.check`."""
        self.settle_metrics(root, {})
        notes, learned = [], set[str]()
        for name, read in self._learned_tables(root).items():
            try:
                texts = read()[self.text_column]
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            notes.append(f"{name}: {len(texts):,} different texts")
            learned.update(texts)
        pairs = dict[str, Iterable[tuple[str, str]]]()
        for name, named in self._measured_tables().items():
            try:
                path = self.named_path(root, named)
                self.check_table(path)
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            notes += [f"{name}: {note}" for note in (*notes_on(path), *notes_on_source(path))]
            texts = list(self.texts_in(self.read(path)))
            pairs[name] = zip(texts[::2], texts[1::2], strict=True)
            shared = sum(text in learned for text in texts)
            notes += [f"{name}: {shared:,} of {len(texts):,} texts are training texts"] * bool(shared)
        notes += common_rows(pairs)
        if (found := self.retrieval(root)) is not None:
            notes.append(f"corpus_file: {len(found.corpus):,} texts, for {len(found.queries):,} queries")
        return notes

    def _learned_tables(self, root: Path) -> dict[str, Callable[[], Dataset]]:
        """Return what reads the texts that are learned from, by the field that names them."""
        further = {"unlabelled_files": lambda: self.unlabelled_table(root)} if self.unlabelled_files else {}
        return {self.field("train"): lambda: self.table(root, "train"), **further}

    def _measured_tables(self) -> dict[str, Files | Split]:
        """Return the tables of pairs, by the field that names them, the one of validation first."""
        parts: tuple[Part, ...] = ("validation", "test")
        named = {self.field(part): getattr(self, self.field(part)) for part in parts}
        return named | {f"further_tests.{name}": file for name, file in self.further_tests.items()}

    @property
    def more_test_files(self) -> dict[str, str]:
        """Those of what is to be found. See `TableTask.more_test_files`."""
        return {name: file for name in _RETRIEVAL if (file := getattr(self, name)) is not None}

    def retrieval(self, root: Path) -> Retrieval | None:
        """Read what is to be found; None where no files name it. ValueError where they can't be read."""
        if self.corpus_file is None or self.queries_file is None:
            return None
        qrels = None if self.qrels_file is None else root / self.qrels_file
        return read_retrieval(root / self.corpus_file, root / self.queries_file, qrels)

    def check_rows(self, path: Path) -> None:
        """Check pairs and scores; ValueError where they are none."""
        check_table(path, self.text_column, self.text_pair_column, label_column=self.label_column, scores=True)

    def check_together(self, path: Path) -> None:
        """Check that scores differ: no correlation is told of others. ValueError where not."""
        scores = self.encoded(read_table(path), {})
        if len(set(cast(list[float], scores))) < 2:
            raise ValueError(f"{len(scores)} row(s) of one score in {path}; expected: scores that differ")

    def names_in(self, table: Dataset) -> list[str]:
        """Return the name of the score, that of its column."""
        return [self.label_column]

    def labels(self, root: Path) -> list[str]:
        """Return the same: the training texts have none."""
        return [self.label_column]

    def check_teacher(self, root: Path, teacher: PretrainedConfig) -> None:
        """Check that texts are given to the teacher as its files say: with its default prompt. ValueError where not."""
        prompts = prompts_of(teacher)
        if (default := prompts.get("", "")) and self.prompt != default:
            raise ValueError(
                f"prompt: {self.prompt!r}; expected: {default!r}, which the teacher puts before every text"
            )

    def check_labels(self, table: Dataset, config: PretrainedConfig) -> None:
        """Check nothing: a model knows no labels."""

    def encoded(self, table: Dataset, labels: Mapping[str, int]) -> Labels:
        """Return the scores of pairs as floating-point numbers."""
        return [float(cast(float, score)) for score in values_of(table, self.label_column)]

    def references(self, rows: Dataset) -> Answers:
        """Return the score of each pair, (pairs,)."""
        scores: Answers = np.array(rows[SCORES])[np.argsort(rows[PLACES])][::2]
        return scores
