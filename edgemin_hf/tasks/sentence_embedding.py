"""Sentence embedding: a text gets a vector, whose cosine with another's tells how alike the two are.

The student learns the teacher's vectors, as Reimers and Gurevych (2020, arXiv 2004.09813) have students learn them by
squared error, of texts without labels; pairs with scores, such as STS-B's, choose and measure it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

import numpy as np
import torch
from datasets import Dataset, Features, Value
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.tables import check_table, notes_on, read_lines, read_table, values_of
from edgemin_hf.data.tokenization import tokenize
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.modeling.embedder import SENTENCE, AutoModelForSentenceEmbedding, SentenceHead
from edgemin_hf.modeling.embedder_files import prompts_of
from edgemin_hf.tasks.base import Divergence, Outputs
from edgemin_hf.tasks.metrics import Answer, Answers
from edgemin_hf.tasks.table_task import Labels, TableTask
from edgemin_hf.tasks.vectors import cosines

Space = Literal["auto", "teacher", "principal"]
SCORES = "scores"
"""Column of tokenised pairs that holds their scores, in each of a pair's two rows."""


@dataclass
class SentenceEmbedding(TableTask):
    """A vector for a text.

    Training needs texts alone. Validation and test tables hold pairs with a score of how alike they are.

    Attributes:
        train_file: Texts to train on: .txt with a text a line, or a table with columns of texts.
        validation_file: Pairs and scores for every choice; there must be one.
        text_column: Name of the column that holds the first text of a pair.
        text_pair_column: Name of the column that holds the second.
        label_column: Name of the column that holds the score, a number: the more alike, the higher.
        train_columns: Names of the columns of training tables that hold texts; [] takes those of pairs, as far as a
            table has them, else its column `text`.
        metric: spearmanr or pearsonr, of the cosines with the scores.
        unlabelled_files: Further texts to train on, as `train_file`.
        prompt: What stands before every text.
        space: "teacher": vectors are the teacher's own, and a student of another width gets a dense layer to give them.
            "principal": they are the teacher's on its principal directions over the training texts, as many as the
            student is wide. "auto": the teacher's, where the student is as wide as they are and no `dimensions` are
            asked for, else principal.
        dimensions: Widths of prefixes that stand alone too (Matryoshka, arXiv 2205.13147): their losses are added.

    Example:
        >>> import torch
        >>> from edgemin_hf.tasks import SentenceEmbedding
        >>> task = SentenceEmbedding("texts.txt", "test.tsv", "dev.tsv", dimensions=[128, 64])
        >>> task.metric, SentenceEmbedding.soft_loss(torch.eye(2), torch.eye(2), 1.0)
        ('spearmanr', tensor(0.))
    """

    text_column: str = "sentence1"
    text_pair_column: str = "sentence2"
    label_column: str = "score"
    train_columns: list[str] = field(default_factory=list)
    prompt: str = ""
    space: Space = "auto"
    dimensions: list[int] = field(default_factory=list)
    type: Literal["sentence_embedding"] = "sentence_embedding"

    auto_class: ClassVar[AutoClass] = cast(AutoClass, AutoModelForSentenceEmbedding)
    pipeline_tag: ClassVar[str] = "sentence-similarity"
    answer: ClassVar[Answer] = "score"
    compares_label_names: ClassVar[bool] = False
    learns_labels: ClassVar[bool] = False
    divergence_name: ClassVar[Divergence] = "squared_difference"

    def __post_init__(self) -> None:
        self.metric = self.metric or "spearmanr"
        super().__post_init__()
        if self.validation_file is None:
            raise ValueError("validation_file: None; expected: a table of pairs with scores")
        pair = [self.text_column, self.text_pair_column, self.label_column]
        if len(set(pair)) < len(pair):
            raise ValueError(
                f"text_column, text_pair_column, label_column: {', '.join(pair)}; expected: different ones"
            )
        if self.space not in get_args(Space):
            raise ValueError(f"space: {self.space}; allowed: {', '.join(get_args(Space))}")
        if len(set(self.dimensions)) < len(self.dimensions) or any(one < 1 for one in self.dimensions):
            raise ValueError(f"dimensions: {self.dimensions}; allowed: different numbers from 1 on")
        if self.max_length < _SHORTEST:
            raise ValueError(f"max_length: {self.max_length}; allowed: {_SHORTEST} or more")

    @property
    def labels_column(self) -> str:
        """Name of the column that holds the scores."""
        return self.label_column

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration gives vectors."""
        return configured_for(config, cls.auto_class)

    # Heads and losses.

    def configure(self, config: PretrainedConfig) -> None:
        """Write into a student's configuration which prefixes of its vectors stand alone.

        Raises:
            ValueError: If one is longer than the vectors.
        """
        head = SentenceHead.of(config)._replace(dimensions=self.dimensions)
        setattr(config, SENTENCE, head._asdict())
        SentenceHead.of(config)

    @property
    def embedding_width(self) -> Literal["hidden_size"] | None:
        """Width of a student's vectors, as `create_student` takes it."""
        return None if self.space == "teacher" else "hidden_size"

    def is_principal(self, teacher: PretrainedConfig, width: int) -> bool:
        """Return whether a student of some width learns the teacher's vectors on their principal directions."""
        same = SentenceHead.of(teacher).width(teacher) == width
        return self.space == "principal" or (self.space == "auto" and (not same or bool(self.dimensions)))

    def model_kwargs(self, label_ids: Mapping[str, int]) -> dict[str, object]:
        """Return nothing: there are no labels."""
        return {}

    @classmethod
    def compared(cls, output: Tensor, config: PretrainedConfig) -> list[Tensor]:
        """Return vectors and their prefixes that stand alone, of a student or of what it learns."""
        return [output[:, :width] for width in SentenceHead.of(config).widths(config)]

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Return 0: vectors have no labels."""
        return 0 * logits.sum()

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute the cosine distance from the teacher's vectors, and their squared error beside their own squares.

        The mean over texts of 1 - cos(s, t) + |s - t|^2 / |t|^2. Where all vectors have length 1 the second term is
        twice the first; where they have not it teaches their lengths.

        Args:
            student: s, (batch, width).
            teacher: t, (batch, width); no gradient flows to them.
            temperature: Of no effect.
            counted: Of no effect.

        Returns:
            The scalar loss.
        """
        theirs = teacher.detach().to(student.dtype)
        square = theirs.square().sum(dim=1).clamp(min=torch.finfo(theirs.dtype).tiny)
        distance = 1 - torch.nn.functional.cosine_similarity(student, theirs, dim=1)
        return (distance + (student - theirs).square().sum(dim=1) / square).mean()

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean over texts of the squared distance of vectors from a reference's."""
        return (logits - reference).square().sum(dim=1).mean()

    # Tables.

    def read(self, path: Path) -> Dataset:
        """Read a table: pairs, or texts a row each under the name of the first text of a pair."""
        return self._texts_of(path) if path.suffix == ".txt" else read_table(path)

    def _texts_of(self, path: Path) -> Dataset:
        """Read a file of training texts, each different one once."""
        if path.suffix == ".txt":
            texts: Iterator[object] = iter(read_lines(path))
        else:
            table = read_table(path)
            pair = [name for name in (self.text_column, self.text_pair_column) if name in table.column_names]
            columns = self.train_columns or pair or ["text"]
            check_table(path, *columns)
            texts = (text for column in columns for text in values_of(table, column))
        different = [text for text in dict.fromkeys(map(str, texts)) if text.strip()]
        if not different:
            raise ValueError(f"{path}, which holds no text; allowed: a file with texts")
        return Dataset.from_dict({self.text_column: different}, features=Features({self.text_column: Value("string")}))

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training texts, and the validation pairs."""
        assert self.validation_file is not None  # noqa: S101 - `__post_init__`
        return self._texts_of(root / self.train_file), self.read(root / self.validation_file)

    def unlabelled_table(self, root: Path) -> Dataset:
        """Read the further texts."""
        texts = [text for file in self.unlabelled_files for text in self._texts_of(root / file)[self.text_column]]
        return Dataset.from_dict({self.text_column: list(dict.fromkeys(texts))})

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
        return rows.add_column(SCORES, np.repeat(np.array(self.encoded(table, labels)), 2))

    # Checks.

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check texts and pairs, and return what is worth knowing of them. See `TableTask.check`."""
        notes, texts = [], dict[str, set[str]]()
        for name, files in (("train_file", [self.train_file]), ("unlabelled_files", self.unlabelled_files)):
            try:
                found = {text for file in files for text in self._texts_of(root / file)[self.text_column]}
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            notes += [f"{name}: {len(found):,} different texts"] * bool(files)
            texts[name] = found
        learned = texts["train_file"] | texts["unlabelled_files"]
        for name, file in (("validation_file", str(self.validation_file)), ("test_file", self.test_file)):
            try:
                self.check_rows(root / file)
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            notes += [f"{name}: {note}" for note in notes_on(root / file)]
            pairs = list(self.texts_in(self.read(root / file)))
            shared = sum(text in learned for text in pairs)
            notes += [f"{name}: {shared:,} of {len(pairs):,} texts are training texts"] * bool(shared)
        return notes

    def check_rows(self, path: Path) -> None:
        """Check pairs and scores, and that these differ: no correlation is told of others. ValueError where not."""
        check_table(path, self.text_column, self.text_pair_column, label_column=self.label_column, scores=True)
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

    # Answers.

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the cosine of each pair, float32 (pairs,), from the vectors of their texts in turn."""
        vectors = np.asarray(outputs)
        return cosines(vectors[::2], vectors[1::2]).astype(np.float32)

    def references(self, rows: Dataset) -> Answers:
        """Return the score of each pair, (pairs,)."""
        return np.array(rows[SCORES])[::2]


_SHORTEST = 3
"""Tokens: one of a text, and two special ones."""
