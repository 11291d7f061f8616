"""DistilBERT: soft masked-LM targets, masked LM and aligned hidden states (Sanh et al. 2019, arXiv 1910.01108).

The paper names the three losses (section 2); their weights and temperature are those of the authors' training code.
The student starts from every other layer of the teacher, as `create_student` does by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.masking import Collation, EpochOfMasks, MaskedTokens
from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import check_weights, mask_of, mean_over_tokens, need_teacher
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import Recording


@dataclass
class DistilBERTConfig(Method):
    """Settings of DistilBERT's triple loss. Both models need a masked-LM head, the data masked tokens and labels.

    Attributes:
        soft_weight: Weight of the teacher's softened predictions at every real token.
        mlm_weight: Weight of the masked-LM cross-entropy.
        cosine_weight: Weight of the cosine distance of the last hidden states; above 0 the widths must be equal.
        temperature: Temperature of the soft targets, whose loss is multiplied by its square.
        masked_only: Whether soft targets are compared at the masked tokens alone.

    Example:
        >>> from edgemin_hf import DistilBERTConfig
        >>> DistilBERTConfig(cosine_weight=0.0).soft_weight  # the student may be narrower
        5.0
    """

    method: ClassVar[str] = "distilbert"
    teacher_head: ClassVar[Literal["masked_lm"] | None] = "masked_lm"

    soft_weight: float = 5.0
    mlm_weight: float = 2.0
    cosine_weight: float = 1.0
    temperature: float = 2.0
    masked_only: bool = False

    def __post_init__(self) -> None:
        check_weights(self, "soft_weight", "mlm_weight", "cosine_weight")
        if not 0 < self.temperature < inf:
            raise ValueError(f"temperature: {self.temperature}; allowed: above 0")

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If hidden states are to be compared and the widths differ.
        """
        if self.cosine_weight and student.hidden_size != teacher.hidden_size:
            raise ValueError(
                f"hidden_size: {student.hidden_size}; allowed: {teacher.hidden_size}, the teacher's, or cosine_weight 0"
            )

    def collation(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> Collation:
        """Return a collator that masks tokens, other ones in each epoch."""
        if tokenizer.mask_token is None:
            raise ValueError(f"method: {self.method} with a tokenizer without mask token; allowed: one that has it")
        collator = MaskedTokens(tokenizer, seed=seed)
        return Collation(collator, [EpochOfMasks(collator)])

    def objective(self, student: Encoder, teacher: Encoder | None) -> DistilBERTObjective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher, a model has no masked-LM head, or `check_shapes` fails.
        """
        teacher = need_teacher(teacher, "DistilBERT")
        for name, encoder in (("model", student), ("teacher_model", teacher)):
            if not type(encoder.model).__name__.endswith("ForMaskedLM"):
                raise ValueError(
                    f"{name}: {type(encoder.model).__name__}, which has no masked-LM head; allowed: a ...ForMaskedLM"
                )
        self.check_shapes(
            *(
                Shape(len(encoder.layers), encoder.config.hidden_size, 1, 1)  # heads and neurons are free
                for encoder in (student, teacher)
            )
        )
        return DistilBERTObjective(self, student, teacher)


class DistilBERTObjective:
    """Compare predictions and last hidden states."""

    projections = None

    def __init__(self, config: DistilBERTConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self.needs_student_logits = config.soft_weight + config.mlm_weight > 0
        self.needs_teacher_logits = config.soft_weight > 0
        compared = config.cosine_weight > 0
        self.student_activations = [Activation(len(student.layers) - 1, "output")] * compared
        self.teacher_activations = [Activation(len(teacher.layers) - 1, "output")] * compared

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor | None]:
        """Return the terms `distilbert_soft`, `distilbert_mlm` and `distilbert_cosine`; not those of weight 0.

        Outside training None for those that need labels, where there are none.

        Raises:
            ValueError: If training asks for masked tokens and the data has none.
        """
        config, mask, labels = self.config, mask_of(inputs), inputs.get("labels")
        terms: dict[str, Tensor | None] = {}
        needs_labels = bool(config.mlm_weight or (config.soft_weight and config.masked_only))
        if needs_labels and labels is None and torch.is_grad_enabled():
            raise ValueError(
                f"mlm_weight: {config.mlm_weight} without labels in the data; allowed: 0 then, or masked tokens as "
                "DataCollatorForLanguageModeling makes them"
            )
        if config.soft_weight and config.masked_only and labels is None:
            terms["distilbert_soft"] = None
        elif config.soft_weight:
            assert student.logits is not None  # noqa: S101 - needs_student_logits
            assert teacher.logits is not None  # noqa: S101 - needs_teacher_logits
            at = mask & (labels != -100) if config.masked_only and labels is not None else mask
            loss = token_kl(student.logits, teacher.logits, at, config.temperature)
            terms["distilbert_soft"] = config.soft_weight * loss
        if config.mlm_weight:
            assert student.logits is not None  # noqa: S101 - needs_student_logits
            terms["distilbert_mlm"] = (
                None if labels is None else config.mlm_weight * masked_lm_loss(student.logits, labels)
            )
        if config.cosine_weight:
            ours, theirs = (
                student.activations[self.student_activations[0]],
                teacher.activations[self.teacher_activations[0]],
            )
            distance = 1 - F.cosine_similarity(ours.float(), theirs.detach().float(), dim=-1)
            terms["distilbert_cosine"] = config.cosine_weight * mean_over_tokens(distance, mask)
        return terms


def token_kl(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Compute T^2 KL(softmax(teacher / T) || softmax(student / T)) at the chosen tokens.

    Averaged over the chosen tokens of an example, then over examples. (The authors' code averages over the tokens of
    a batch, which is the same for examples of equal length.)

    Args:
        student: Logits (batch, length, vocabulary).
        teacher: Likewise; no gradient flows to them.
        mask: Which tokens count, bool (batch, length).
        temperature: T.

    Returns:
        The scalar loss.
    """
    ours, theirs = student[mask].float() / temperature, teacher.detach()[mask].float() / temperature
    found = F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    values = found.new_zeros(mask.shape).masked_scatter(mask, found)
    return temperature**2 * mean_over_tokens(values, mask)


def masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the masked-LM cross-entropy, averaged over the masked tokens of an example, then over examples.

    Args:
        logits: (batch, length, vocabulary).
        labels: The true token where one was masked, else -100 (batch, length).

    Returns:
        The scalar loss.
    """
    values = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return mean_over_tokens(values, labels != -100)
