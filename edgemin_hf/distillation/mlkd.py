"""MLKD-BERT: relations of tokens and of samples beside hidden states (Zhang et al. 2024, arXiv 2407.02775).

Two stages, each on the task's data: `MLKDConfig` distils the embeddings and the layers, then `MLKDTaskConfig`, beside
`TaskDistillationConfig`, the predictions. The formulas follow public summaries of the paper, whose own text we had no
access to. Where they leave something open, the docstrings say what we take; "the code" is the repository
HandH1998/tmp_bert_mlkd (branch bert_mlkd), which has the paper's losses and ablations and seems to be its authors'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemin_hf.distillation.base import Method
from edgemin_hf.distillation.common import (
    check_weights,
    hidden_loss,
    mask_of,
    need_teacher,
    new_projection,
    projected,
    uniform_layers,
)
from edgemin_hf.distillation.relations import relation_kl
from edgemin_hf.modeling.encoder import EMBEDDINGS, Activation, Encoder
from edgemin_hf.modeling.families import Shape, shape_of
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.modeling.pooling import first_tokens


@dataclass
class MLKDConfig(Method):
    """Settings of MLKD-BERT's first stage, whose loss is L_EMB + L_MHA + L_FFN: representations, layer by layer.

    Student layer m of M learns from teacher layer m * L / M of L, rounded up. The student may have fewer heads than
    the teacher: what the heads give is concatenated and split anew, so that a split holds several of the teacher's.

    Attributes:
        splits: Number of splits that both models' attention is compared in (A_s); it must divide both widths. None
            takes the student's number of heads.
        embedding_weight: Weight of the embeddings' relations, L_EMB.
        attention_weight: Weight of the attention outputs' relations, L_MHA.
        ffn_weight: Weight of the hidden states' mean squared error, L_FFN.

    Example:
        >>> from edgemin_hf import MLKDConfig
        >>> MLKDConfig(ffn_weight=0.5).embedding_weight
        1.0
    """

    method: ClassVar[str] = "mlkd"

    splits: int | None = None
    embedding_weight: float = 1.0
    attention_weight: float = 1.0
    ffn_weight: float = 1.0

    def __post_init__(self) -> None:
        check_weights(self, "embedding_weight", "attention_weight", "ffn_weight")
        if self.splits is not None and self.splits < 1:
            raise ValueError(f"splits: {self.splits}; allowed: 1 or more")

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check these settings against two models' shapes.

        Raises:
            ValueError: If the splits do not divide a width.
        """
        splits = self.splits or student.num_attention_heads
        for whose, width in (("student", student.hidden_size), ("teacher", teacher.hidden_size)):
            if self.attention_weight and width % splits:
                raise ValueError(f"splits: {splits}; allowed: a divisor of the {whose}'s width {width}")

    def objective(self, student: Encoder, teacher: Encoder | None) -> MLKDObjective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher, or `check_shapes` fails.
        """
        teacher = need_teacher(teacher, "MLKD-BERT")
        self.check_shapes(shape_of(student.config), shape_of(teacher.config))
        return MLKDObjective(self, student, teacher)


class MLKDObjective:
    """Compare the embeddings, and every student layer with its teacher layer.

    The paper's attention output does not say on which side of the output matrix; we take the code's, what the heads
    give before it. E is what goes into the first layer, positions included; the code takes the normalised word
    embeddings alone. Each layer has a W_h of its own, with a bias, as in the code; the paper writes one letter. The
    code also compares the embeddings by L_FFN, the summaries only the layers.
    """

    needs_student_logits = False
    needs_teacher_logits = False

    def __init__(self, config: MLKDConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self._splits = config.splits or student.config.num_attention_heads
        layers = list(enumerate(uniform_layers(student, teacher)))
        self._embeddings = [(Activation(EMBEDDINGS, "output"), Activation(EMBEDDINGS, "output"))] * (
            config.embedding_weight > 0
        )
        self._contexts = [(Activation(m, "context"), Activation(n, "context")) for m, n in layers] * (
            config.attention_weight > 0
        )
        self._hidden = [(Activation(m, "output"), Activation(n, "output")) for m, n in layers] * (config.ffn_weight > 0)
        pairs = [*self._embeddings, *self._contexts, *self._hidden]
        self.student_activations = [ours for ours, _ in pairs]
        self.teacher_activations = [theirs for _, theirs in pairs]
        widths = student.config.hidden_size, teacher.config.hidden_size
        self.projections = nn.ModuleList(new_projection(*widths) for _ in self._hidden) if self._hidden else None

    def __call__(self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms `mlkd_embeddings`, `mlkd_attention` and `mlkd_ffn`; not those of weight 0."""
        config, mask, terms = self.config, mask_of(inputs), dict[str, Tensor]()

        def relations(pairs: list[tuple[Activation, Activation]], splits: int) -> Tensor:
            found = ((student.activations[ours], teacher.activations[theirs]) for ours, theirs in pairs)
            return torch.stack([relation_kl(s, s, t, t, mask, splits) for s, t in found]).sum()

        if self._embeddings:
            terms["mlkd_embeddings"] = config.embedding_weight * relations(self._embeddings, 1)
        if self._contexts:
            terms["mlkd_attention"] = config.attention_weight * relations(self._contexts, self._splits)
        if self.projections is not None:
            losses = [
                hidden_loss(student.activations[ours], teacher.activations[theirs], projection, mask)
                for (ours, theirs), projection in zip(self._hidden, self.projections, strict=True)
            ]
            terms["mlkd_ffn"] = config.ffn_weight * torch.stack(losses).sum()
        return terms


@dataclass
class MLKDTaskConfig(Method):
    """Settings of MLKD-BERT's second stage, L_SS + L_SC + L_KD: how the samples of a batch relate to each other.

    L_KD is task distillation's soft labels; the paper uses no other cross-entropy, and the code a temperature of 1:

        distillation_config=[
            TaskDistillationConfig(soft_weight=1.0, hard_weight=0.0, temperature=1.0), MLKDTaskConfig()
        ]

    Samples are compared within a batch of one process, so that batch size, accumulation and number of processes do
    matter here.

    Attributes:
        similarity_weight: Weight of the sample similarity relation, L_SS.
        contrast_weight: Weight of the sample contrastive relation, L_SC, which needs labels. The summaries weigh all
            terms by one; the code multiplies this one by its temperature.
        contrast_temperature: Temperature of L_SC. The summaries give none; 0.07 is the code's.

    Example:
        >>> from edgemin_hf import MLKDTaskConfig
        >>> MLKDTaskConfig(contrast_temperature=0.1).similarity_weight
        1.0
    """

    method: ClassVar[str] = "mlkd_task"
    learns_labels: ClassVar[bool] = True

    similarity_weight: float = 1.0
    contrast_weight: float = 1.0
    contrast_temperature: float = 0.07

    def __post_init__(self) -> None:
        check_weights(self, "similarity_weight", "contrast_weight")
        if not 0 < self.contrast_temperature < inf:
            raise ValueError(f"contrast_temperature: {self.contrast_temperature}; allowed: above 0")

    def check_task(self, problem_type: str) -> None:
        """Check that examples have one class each, where those of a class are compared; ValueError where not."""
        if self.contrast_weight and problem_type != "single_label_classification":
            raise ValueError(f"contrast_weight: {self.contrast_weight} with a head for {problem_type}; allowed: 0 then")

    def objective(self, student: Encoder, teacher: Encoder | None) -> MLKDTaskObjective:
        """Build the objective for two models.

        Raises:
            ValueError: If there is no teacher.
        """
        return MLKDTaskObjective(self, student, need_teacher(teacher, "MLKD-BERT"))


class MLKDTaskObjective:
    """Compare [CLS] after the last layers, over the samples of a batch.

    L_SC compares a learned projection of the student's [CLS] with the teacher's, as in the code. There it is the W_h
    that the first stage trained; here each stage trains its own, which starts as the identity for equal widths.
    """

    needs_student_logits = False
    needs_teacher_logits = False

    def __init__(self, config: MLKDTaskConfig, student: Encoder, teacher: Encoder) -> None:
        self.config = config
        self.student_activations = [Activation(len(student.layers) - 1, "output")]
        self.teacher_activations = [Activation(len(teacher.layers) - 1, "output")]
        self.projections: nn.Linear | None = None
        if config.contrast_weight:
            self.projections = new_projection(student.config.hidden_size, teacher.config.hidden_size)

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor | None]:
        """Return the terms `mlkd_similarity` and `mlkd_contrast`; not those of weight 0.

        Outside training None for the contrast, where there are no labels.

        Raises:
            ValueError: If labels are missing in training, or are not one class for each example.
        """
        config, mask, labels = self.config, mask_of(inputs), inputs.get("labels")
        terms: dict[str, Tensor | None] = {}
        ours = first_tokens(student.activations[self.student_activations[0]], mask)
        theirs = first_tokens(teacher.activations[self.teacher_activations[0]], mask)
        if config.similarity_weight:
            terms["mlkd_similarity"] = config.similarity_weight * sample_similarity_kl(ours, theirs)
        if config.contrast_weight and labels is None and torch.is_grad_enabled():
            raise ValueError(f"contrast_weight: {config.contrast_weight} without labels in the data; allowed: 0 then")
        if self.projections is not None and labels is None:
            terms["mlkd_contrast"] = None
        elif self.projections is not None and labels is not None:
            if labels.ndim != 1 or labels.is_floating_point():
                raise ValueError(f"labels of shape {tuple(labels.shape)}, {labels.dtype}; allowed: a class each")
            loss = sample_contrast(projected(ours, self.projections), theirs, labels, config.contrast_temperature)
            terms["mlkd_contrast"] = config.contrast_weight * loss
        return terms


def sample_similarity_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute L_SS: KL(teacher || student) of softmax(H H^T / sqrt(d)), averaged over the samples, the rows.

    Args:
        student: [CLS] of each sample of a batch, (batch, width).
        teacher: (batch, width), the width of the teacher; no gradient flows to it.

    Returns:
        The scalar loss: float64 for a float64 student, else float32.
    """
    ours, theirs = student[None], teacher.detach()[None]
    return relation_kl(ours, ours, theirs, theirs, torch.ones_like(ours[..., 0], dtype=torch.bool), heads=1)


def sample_contrast(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Compute L_SC, InfoNCE over both models' views of the b samples of a batch.

    1/2b sum_i 1/|P(i)| sum_{p in P(i)} -log(exp(s_ip) / sum_{j != i} exp(s_ij)), where i runs over all 2b views, P(i)
    are the other views of i's class (so i's other view is always there), and s is the cosine over the temperature, as
    in supervised contrastive learning (Khosla et al. 2020, arXiv 2004.11362).

    Args:
        student: [CLS] of each sample, projected to the teacher's width, (batch, width).
        teacher: (batch, width); no gradient flows to it.
        labels: Classes, integer (batch,).
        temperature: What the cosines are divided by.

    Returns:
        The scalar loss: float64 for a float64 student, else float32.
    """
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    with torch.autocast(student.device.type, enabled=False):
        views = F.normalize(torch.cat([student.to(dtype), teacher.detach().to(dtype)]), dim=-1)
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        log_share = (views @ views.T / temperature).masked_fill(itself, -inf).log_softmax(dim=-1)
    positive = (labels[:, None] == labels).repeat(2, 2) & ~itself
    return -(log_share.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1)).mean()
