"""Similarities within a batch: the student's vectors are to each other as the teacher's are, whatever their widths.

Relational knowledge distillation (Park et al. 2019, arXiv 1904.05068) and similarity-preserving distillation (Tung and
Mori 2019, arXiv 1907.09682) compare samples by squared errors; the divergence of softened rows is that of SEED (Fang et
al. 2021, arXiv 2101.04731), whose queue of other samples is the rest of the batch here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemin_hf.data.padding import TEACHER_LOGITS
from edgemin_hf.distillation.base import Method
from edgemin_hf.modeling.embedder import EMBEDDER, SentenceHead
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.hooks import Recording

Comparison = Literal["kl", "mse"]


@dataclass
class SimilaritiesConfig(Method):
    """Settings of the comparison of similarities, of sentence encoders.

    Texts are compared within a batch of one process, so that batch size, accumulation and number of processes do
    matter here.

    Attributes:
        comparison: The divergence of the rows of similarities, or their mean squared difference.
        similarity_temperature: What cosines are divided by before the softmax of a row; of no effect with "mse".

    Example:
        >>> from edgemin_hf import SimilaritiesConfig
        >>> SimilaritiesConfig(comparison="mse").similarity_temperature
        0.05
    """

    method: ClassVar[str] = "similarities"
    compares_outputs: ClassVar[bool] = True

    comparison: Comparison = "kl"
    similarity_temperature: float = 0.05

    def __post_init__(self) -> None:
        if self.comparison not in get_args(Comparison):
            raise ValueError(f"comparison: {self.comparison}; allowed: {', '.join(get_args(Comparison))}")
        if not 0 < self.similarity_temperature < inf:
            raise ValueError(f"similarity_temperature: {self.similarity_temperature}; allowed: above 0")

    def check_task(self, problem_type: str) -> None:
        """Check that models give vectors; ValueError where not."""
        if problem_type != "sentence_embedding":
            raise ValueError(f"method: {self.method} with a head for {problem_type}; allowed: for sentence embedding")

    def objective(self, student: Encoder, teacher: Encoder | None) -> SimilaritiesObjective:
        """Build the objective for two models; the teacher may be None where its vectors come with the inputs.

        Raises:
            ValueError: If one gives no vectors.
        """
        for name, encoder in (("model", student), ("teacher_model", teacher)):
            if encoder is not None and not type(encoder.model).__name__.endswith(EMBEDDER):
                kind = type(encoder.model).__name__
                raise ValueError(f"{name}: {kind}, which gives no vectors; allowed: a ...{EMBEDDER}")
        return SimilaritiesObjective(self, SentenceHead.of(student.config).widths(student.config))


class SimilaritiesObjective:
    """Compare the vectors of a batch, and those of their prefixes that are to stand alone."""

    student_activations: Sequence[Activation] = ()
    teacher_activations: Sequence[Activation] = ()
    needs_student_logits = True
    needs_teacher_logits = True
    projections = None

    def __init__(self, config: SimilaritiesConfig, widths: Sequence[int]) -> None:
        self.config, self._widths = config, widths

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor | None]:
        """Return the term `similarities`; outside training None where the teacher's vectors are missing.

        Raises:
            ValueError: If they are missing in training.
        """
        target = inputs.get(TEACHER_LOGITS, teacher.logits)
        if target is None and torch.is_grad_enabled():
            raise ValueError("method: similarities without a teacher; expected: one, or its vectors in the data")
        if target is None or student.logits is None:
            return {"similarities": None}
        config = self.config
        losses = [
            similarity_loss(student.logits[:, :width], target, config.comparison, config.similarity_temperature)
            for width in self._widths
        ]
        return {"similarities": torch.stack(losses).sum()}


def similarity_loss(
    student: Tensor, teacher: Tensor, comparison: Comparison = "kl", temperature: float = 0.05
) -> Tensor:
    """Compare how similar the texts of a batch are to each other, by the cosines of their vectors.

    With s_ij and t_ij the cosines of student and teacher, "kl" is the mean over texts i of KL(softmax_j(t_ij / T) ||
    softmax_j(s_ij / T)), and "mse" that of the mean over j of (s_ij - t_ij)^2; j is never i. A text alone in its batch
    has a loss of 0.

    Args:
        student: Vectors (batch, width).
        teacher: Vectors (batch, another width); no gradient flows to them.
        comparison: "kl" or "mse".
        temperature: T.

    Returns:
        The scalar loss: float64 for float64 vectors of the student, else float32.

    Example:
        >>> import torch
        >>> from edgemin_hf.distillation.similarities import similarity_loss
        >>> turned = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> similarity_loss(turned, turned.flip(1)).item()
        0.0
    """
    dtype = torch.float64 if student.dtype == torch.float64 else torch.float32
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = (_to_others(vectors.to(dtype)) for vectors in (student, teacher.detach()))
        if comparison == "mse":
            losses = (ours - theirs).square().sum(dim=1) / max(len(ours) - 1, 1)
        else:
            logs = (ours / temperature).log_softmax(dim=1)
            wanted = (theirs / temperature).log_softmax(dim=1)
            losses = (wanted.exp() * (wanted - logs)).sum(dim=1)
    return losses.mean()


def _to_others(vectors: Tensor) -> Tensor:
    """Return the cosine of each vector with each other one: (batch, width) -> (batch, batch - 1)."""
    unit = F.normalize(vectors, dim=1)
    others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return (unit @ unit.T)[others].view(len(unit), len(unit) - 1)
