"""Masked language model: a student for every task, that others fine-tune, measured by the tokens that it finds again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForMaskedLM, EvalPrediction, PretrainedConfig, PreTrainedTokenizerBase

from edgemin_hf.data.corpus import check_packable
from edgemin_hf.data.masked_rows import IN_TURN, MaskingCollator, masked_rows, packed_rows
from edgemin_hf.data.masking import Collation, EpochOfMasks
from edgemin_hf.data.sources import files_of, notes_on_source
from edgemin_hf.data.text_tables import distinct_texts, read_texts
from edgemin_hf.data.tokenization import count_cut, tokenize
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.tasks.base import UNLABELLED, Outputs, Part, mean_of_counted
from edgemin_hf.tasks.checks import common_rows
from edgemin_hf.tasks.metrics import Answer, Answers, Measurement, Metric, measure, value_of
from edgemin_hf.tasks.splits import held_out
from edgemin_hf.tasks.table_task import Labels, TableTask

_SHORTEST = 8
"""Tokens of the shortest row: special ones, and some to mask."""
_PSEUDO = "pseudo_perplexity"


@dataclass
class MaskedLM(TableTask):
    """The token at each masked place of a text. See `TableTask`.

    Texts need no labels: .txt files with a text a line, or tables; each different text counts once. Those that are
    trained on are masked anew in each epoch, as BERT does it; of those that are measured the same tokens are masked in
    every run, each with the mask token. The teacher runs beside the student: what it says of a masked token is as wide
    as the vocabulary, and is not kept.

    Attributes:
        text_column: Name of the column of a table that holds the texts.
        split_sentences: Whether .txt, and .txt.zst, hold documents between blank lines, whose sentences are the texts.
        pack: Whether texts to train on are joined and cut into rows of `max_length` tokens; else each is a row, cut
            after as many.
        mask_probability: Share of a text's tokens that are masked.
        pseudo_perplexity_texts: Texts of a test table, the first ones, whose tokens are masked in turn too: a pass of
            the model a token.
        keep_head: Whether what is exported predicts masked tokens; else it is the encoder alone, which gives hidden
            states and is measured by nothing.
        metric: masked_accuracy, and beside it pseudo_perplexity, which only the final evaluation tells.

    Example:
        >>> import numpy as np
        >>> from datasets import Dataset
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from edgemin_hf.tasks import MaskedLM
        >>> rules = Tokenizer(models.WordLevel({"[MASK]": 0, "my": 1, "card": 2}))
        >>> rules.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, mask_token="[MASK]")
        >>> task = MaskedLM("train.txt", "test.txt")
        >>> rows = task.tokenized(Dataset.from_dict({"text": ["my card"], "in_turn": [True]}), tokenizer, {})
        >>> rows[2]["input_ids"], rows[2]["labels"]
        ([1, 0], [-100, 2])
        >>> task.predictions(np.zeros((3, 2, 3), dtype=np.float32), rows)[0][2]  # no hit, log 1/3, alone
        [0.0, -1.0986123085021973, 1.0]
    """

    text_column: str = "text"
    split_sentences: bool = False
    pack: bool = False
    mask_probability: float = 0.15
    pseudo_perplexity_texts: int = 256
    keep_head: bool = True
    type: Literal["masked_lm"] = "masked_lm"

    auto_class: ClassVar[AutoClass] = AutoModelForMaskedLM
    pipeline_tag: ClassVar[str] = "fill-mask"
    ragged: ClassVar[bool] = True
    fits_head: ClassVar[bool] = False
    compares_label_names: ClassVar[bool] = False
    teacher_beside: ClassVar[bool] = True
    answer: ClassVar[Answer] = "masked tokens"

    def __post_init__(self) -> None:
        self.metric = self.metric or ["masked_accuracy", _PSEUDO]
        super().__post_init__()
        if self.metric_name == _PSEUDO:
            raise ValueError(f"metric: {_PSEUDO} alone or first; allowed: masked_accuracy, or it beside that")
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

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration predicts masked tokens."""
        return configured_for(config, cls.auto_class)

    def configure(self, config: PretrainedConfig) -> None:
        """Change nothing: the head has a row a token, as the tables have."""

    def _texts_of(self, paths: list[Path]) -> Dataset:
        texts = (read_texts(path, [self.text_column], split_sentences=self.split_sentences) for path in paths)
        return distinct_texts(paths, texts, self.text_column)

    def read(self, path: Path) -> Dataset:
        """Read texts to be measured: each different one once, and which are masked token by token too.

        Raises:
            ValueError: If the file can't be read, lacks the column, or holds no text.
        """
        texts = self._texts_of([path])
        asked = self.pseudo_perplexity_texts if any(metric.name == _PSEUDO for metric in self.metrics) else 0
        return texts.add_column(IN_TURN, [number < asked for number in range(len(texts))])

    def table(self, root: Path, part: Part) -> Dataset:
        """Read the texts to train on, whose masks are not fixed, or those to be measured. See `read`."""
        return self._texts_of(self.train_paths(root)) if part == "train" else super().table(root, part)

    def train_paths(self, root: Path) -> list[Path]:
        """Return the files of training texts: those that are named, each read by itself, or that of a split."""
        return super().train_paths(root) if self.dataset else files_of(root, self.train_file)

    def tables(self, root: Path, seed: int) -> tuple[Dataset, Dataset]:
        """Read the training texts and the validation texts, none of which is masked token by token."""
        train = self.table(root, "train")
        if self.holds_out:
            train, validation = held_out(train, self.validation_share, seed)
        else:
            validation = self.table(root, "validation").remove_columns(IN_TURN)
        return train, validation.add_column(IN_TURN, [False] * len(validation))

    def check(self, root: Path, teacher: Mapping[str, int] | None = None) -> list[str]:
        """Check that all texts can be read, and return how many there are. See `TableTask.check`."""
        self.settle_metrics(root, {})
        parts: list[Part] = ["train", "test"] if self.holds_out else ["train", "validation", "test"]
        readers: dict[str, Callable[[], Dataset]] = {self.field(p): lambda p=p: self.table(root, p) for p in parts}  # type: ignore[misc]
        for name, named in self.further_tests.items():
            readers[f"further_tests.{name}"] = lambda named=named: self.read(self.named_path(root, named))  # type: ignore[misc]
        notes, texts = [], dict[str, list[str]]()
        for name, read in readers.items():
            try:
                texts[name] = read()[self.text_column][:]
            except (ValueError, OSError) as error:
                raise ValueError(f"{name}: {error}") from None
            notes.append(f"{name}: {len(texts[name]):,} different texts")
        for part in ("train", "test") if self.holds_out else ("test",):
            if len(texts[self.field(part)]) < 2:  # type: ignore[arg-type]
                raise ValueError(f"{self.field(part)}: 1 text; expected: 2 or more")  # type: ignore[arg-type]
        notes += [] if self.dataset else notes_on_source(self.path(root, "test"))
        return [*notes, *common_rows(texts)]

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

    def train_and_validation(
        self, root: Path, tokenizer: PreTrainedTokenizerBase, labels: Mapping[str, int], seed: int
    ) -> tuple[Dataset, Dataset]:
        """Read, split and tokenise texts; those to train on have no masks yet. See `collation`."""
        train, validation = self.tables(root, seed)
        return self.tokenized(train, tokenizer, labels), self.tokenized(validation, tokenizer, labels)

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

    @staticmethod
    def condensed(logits: Tensor, labels: Tensor) -> Tensor:
        """Return what is kept of logits: whether the likeliest token is the true one, and the true one's log-probability.

        Args:
            logits: (batch, length, vocabulary).
            labels: (batch, length), `UNLABELLED` where nothing is kept.

        Returns:
            (batch, length, 2), 0 where nothing is kept.
        """
        at = labels != UNLABELLED
        asked, true = logits[at].float(), labels[at]
        kept = logits.new_zeros(*labels.shape, 2, dtype=torch.float32)
        told = asked.log_softmax(-1).gather(-1, true[:, None])[:, 0]
        kept[at] = torch.stack([(asked.argmax(-1) == true).float(), told], dim=-1)
        return kept

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return what is said of each text's masked tokens, as `MaskedToken`.

        Args:
            outputs: Logits (length, vocabulary) of each row, or what `condensed` keeps of them.
            rows: The rows, in any order.
        """
        assert rows is not None  # noqa: S101 - of a ragged task
        found: dict[int, list[list[float]]] = {}
        for output, row in zip(outputs, rows.select_columns(["example", IN_TURN, "labels"]), strict=True):
            labels, kept = torch.tensor(row["labels"]), torch.as_tensor(output)
            if kept.shape[-1] > 2:  # no vocabulary has two tokens
                kept = self.condensed(kept[None], labels[None])[0]
            told = kept[labels != UNLABELLED].tolist()
            found.setdefault(row["example"], []).extend([*token, float(row[IN_TURN])] for token in told)
        return [found[example] for example in sorted(found)]

    def references(self, rows: Dataset) -> Answers:
        """Return the true tokens of each text, in the order of `predictions`."""
        found: dict[int, list[int]] = {}
        for row in rows.select_columns(["example", "labels"]):
            found.setdefault(row["example"], []).extend(label for label in row["labels"] if label != UNLABELLED)
        return [found[example] for example in sorted(found)]

    def compute_metrics(self, prediction: EvalPrediction, rows: Dataset) -> dict[str, float]:
        """Compute the metrics for validation rows, where no token is masked alone: without the pseudo-perplexity."""
        outputs = [output[: len(row)] for output, row in zip(prediction.predictions, rows["labels"], strict=True)]
        truth, found = self.references(rows), self.predictions(outputs, rows)
        return {m.name: value_of(m, truth, found) for m in self.metrics if m.name != _PSEUDO}

    def measure(self, references: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions, each metric on the texts that it is about. See `TableTask.measure`."""
        found, *others = (measure(metric, *_asked(metric, references, predictions)) for metric in self.metrics)
        if others:
            found["others"] = others
        return found

    @staticmethod
    def hard_loss(logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the cross-entropy of masked tokens, a mean over a text's own, then over texts.

        Args:
            logits: (batch, length, vocabulary).
            labels: The true tokens (batch, length), `UNLABELLED` where nothing is to be predicted.
        """
        at = labels != UNLABELLED
        return _mean_at(F.cross_entropy(logits[at], labels[at], reduction="none"), at)

    @staticmethod
    def soft_loss(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None = None) -> Tensor:
        """Compute T^2 KL(softmax(teacher / T) || softmax(student / T)) of each masked token (arXiv 1503.02531).

        Args:
            student: Logits (batch, length, vocabulary).
            teacher: Likewise; no gradient flows to them.
            temperature: T.
            counted: As of `Task.soft_loss`; None counts all.

        Returns:
            The mean over a text's own tokens, then over texts.
        """
        at = torch.ones_like(student[..., 0], dtype=torch.bool) if counted is None else counted.bool()
        return temperature**2 * _divergence_at(student, teacher.detach(), at, temperature)

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean KL divergence of masked tokens from a reference's, in nats, never negative."""
        at = torch.ones_like(logits[..., 0], dtype=torch.bool) if counted is None else counted.bool()
        return _divergence_at(logits, reference, at).clamp(min=0.0)


def _divergence_at(student: Tensor, teacher: Tensor, at: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute KL(softmax(teacher / T) || softmax(student / T)) at some tokens, a mean over each text's own."""
    ours, theirs = (side[at].to(student.dtype).div(temperature).log_softmax(-1) for side in (student, teacher))
    return _mean_at(F.kl_div(ours, theirs, log_target=True, reduction="none").sum(dim=-1), at)


def _mean_at(values: Tensor, at: Tensor) -> Tensor:
    """Return the mean over texts of the mean over a text's own tokens, of values of the chosen ones alone."""
    return mean_of_counted(values.new_zeros(at.shape).masked_scatter(at, values), at)


def _asked(metric: Metric, references: Answers, predictions: Answers) -> tuple[Answers, Answers]:
    """Return truth and predictions of the texts that a metric is about."""
    if metric.name != _PSEUDO:
        return references, predictions
    chosen = [number for number, tokens in enumerate(predictions) if any(token[2] for token in tokens)]
    return [references[number] for number in chosen], [predictions[number] for number in chosen]
