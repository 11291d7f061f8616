"""Masked language model: a student for every task, which others fine-tune, measured by the tokens that it finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForMaskedLM, EvalPrediction, PretrainedConfig

from edgemin_hf.data.masked_rows import IN_TURN
from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import UNLABELLED, mean_of_counted
from edgemin_hf.tasks.masked_texts import MaskedTexts
from edgemin_hf.tasks.metrics import Answer, Answers, Measurement, Metric, measure, value_of

_PSEUDO = "pseudo_perplexity"


@dataclass
class MaskedLM(MaskedTexts):
    """The token at each masked place of a text. See `MaskedTexts` for its texts.

    The teacher runs beside the student: what it says of a masked token is as wide as the vocabulary, and is not kept.

    Attributes:
        keep_head: Whether what is exported predicts masked tokens; else it is the encoder alone, for
            "feature-extraction", which gives hidden states and is measured by nothing: such a recipe ends with
            `export`.
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

    keep_head: bool = True
    type: Literal["masked_lm"] = "masked_lm"

    auto_class: ClassVar[AutoClass] = AutoModelForMaskedLM
    pipeline_tag: ClassVar[str] = "fill-mask"
    ragged: ClassVar[bool] = True
    fits_head: ClassVar[bool] = False
    teacher_beside: ClassVar[bool] = True
    answer: ClassVar[Answer] = "masked tokens"

    def __post_init__(self) -> None:
        self.metric = self.metric or ["masked_accuracy", _PSEUDO]
        super().__post_init__()
        if self.metric_name == _PSEUDO:
            raise ValueError(f"metric: {_PSEUDO} alone or first; allowed: masked_accuracy, or it beside that")

    @property
    def masks_in_turn(self) -> bool:
        """Whether a metric asks for tokens that are masked one by one."""
        return any(metric.name == _PSEUDO for metric in self.metrics)

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration predicts masked tokens."""
        return configured_for(config, cls.auto_class)

    def configure(self, config: PretrainedConfig) -> None:
        """Change nothing: the head has a row a token, as the tables have."""

    @staticmethod
    def condensed(logits: Tensor, labels: Tensor) -> Tensor:
        """Return what is kept of logits: whether the likeliest token is the true one, and that one's log-probability.

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
        """Compute the metrics that some rows tell. See `TableTask.compute_metrics`."""
        outputs = [output[: len(row)] for output, row in zip(prediction.predictions, rows["labels"], strict=True)]
        truth, found = self.references(rows), self.predictions(outputs, rows)
        return {metric.name: value_of(metric, *sides) for metric, *sides in self._told(truth, found)}

    def measure(self, references: Answers, predictions: Answers, names: Sequence[str] = ()) -> Measurement:
        """Measure predictions by the metrics that they tell, each of the texts that it is about."""
        found, *others = (measure(metric, *sides) for metric, *sides in self._told(references, predictions))
        if others:
            found["others"] = others
        return found

    def _told(self, references: Answers, predictions: Answers) -> Iterator[tuple[Metric, Answers, Answers]]:
        """Yield metrics with truth and predictions of the texts that each is about; none without such texts."""
        alone = [number for number, tokens in enumerate(predictions) if any(token[2] for token in tokens)]
        for metric in self.metrics:
            if metric.name != _PSEUDO:
                yield metric, references, predictions
            elif alone:
                yield metric, [references[number] for number in alone], [predictions[number] for number in alone]

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
