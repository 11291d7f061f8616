"""Sentence embedding: a text gets a vector, whose cosine with another's tells how alike the two are.

The student learns the teacher's vectors, as Reimers and Gurevych (2020, arXiv 2004.09813) have students learn them by
squared error, of texts without labels; pairs with scores, such as STS-B's, choose and measure it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast, get_args

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PretrainedConfig

from edgemin_hf.modeling.auto_class import AutoClass, configured_for
from edgemin_hf.modeling.embedder import SENTENCE, AutoModelForSentenceEmbedding, SentenceHead
from edgemin_hf.modeling.embedder_files import set_default_prompt, set_longest_text
from edgemin_hf.runtime.vectors import Vectors, cosines
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.head import Divergence
from edgemin_hf.tasks.metrics import Answers
from edgemin_hf.tasks.scored_pairs import PLACES, ScoredPairs

Space = Literal["auto", "teacher", "principal"]
_LEAST_SQUARE = 1e-12


@dataclass
class SentenceEmbedding(ScoredPairs):
    """A vector for a text. See `ScoredPairs` for its tables.

    Attributes:
        metric: spearmanr or pearsonr, of the cosines with the scores.
        space: "teacher": vectors are the teacher's own, beside which they can stand in an index, and a student of
            another width gets a dense layer to give them. "principal": they are the teacher's on its principal
            directions over the training texts (uncentred, so that inner products survive best), as many as the student
            is wide, which is no wider than they are. "auto": the teacher's, where the student is as wide as they are
            and no `dimensions` are asked for, else principal.
        dimensions: Widths of prefixes that stand alone too (Matryoshka, arXiv 2205.13147): the losses of all are added,
            the whole width's among them. On principal directions the first ones say the most by themselves.

    Example:
        >>> import torch
        >>> from edgemin_hf.tasks import SentenceEmbedding
        >>> task = SentenceEmbedding("texts.txt", "test.tsv", "dev.tsv", dimensions=[128, 64])
        >>> task.metric, SentenceEmbedding.soft_loss(torch.eye(2), torch.eye(2), 1.0)
        ('spearmanr', tensor(0.))
    """

    space: Space = "auto"
    dimensions: list[int] = field(default_factory=list)
    type: Literal["sentence_embedding"] = "sentence_embedding"

    auto_class: ClassVar[AutoClass] = cast(AutoClass, AutoModelForSentenceEmbedding)
    pipeline_tag: ClassVar[str] = "sentence-similarity"
    gives_vectors: ClassVar[bool] = True
    divergence_name: ClassVar[Divergence] = "squared_difference"

    def __post_init__(self) -> None:
        self.metric = self.metric or "spearmanr"
        super().__post_init__()
        if self.space not in get_args(Space):
            raise ValueError(f"space: {self.space}; allowed: {', '.join(get_args(Space))}")
        if len(set(self.dimensions)) < len(self.dimensions) or any(one < 1 for one in self.dimensions):
            raise ValueError(f"dimensions: {self.dimensions}; allowed: different numbers from 1 on")

    @classmethod
    def compatible(cls, config: PretrainedConfig) -> bool:
        """Return whether a model of this configuration gives vectors."""
        return configured_for(config, cls.auto_class)

    def configure(self, config: PretrainedConfig) -> None:
        """Write into a student's configuration which prefixes of its vectors stand alone, and how it reads texts.

        Raises:
            ValueError: If one is longer than the vectors.
        """
        head = SentenceHead.of(config)._replace(dimensions=self.dimensions)
        setattr(config, SENTENCE, head._asdict())
        SentenceHead.of(config)
        set_default_prompt(config, self.prompt)
        set_longest_text(config, self.max_length)

    @property
    def embedding_width(self) -> Literal["hidden_size"] | None:
        """Width of a student's vectors, as `create_student` takes it."""
        return None if self.space == "teacher" else "hidden_size"

    def is_principal(self, teacher: PretrainedConfig, width: int) -> bool:
        """Return whether a student of some width learns the teacher's vectors on their principal directions."""
        same = SentenceHead.of(teacher).width(teacher) == width
        return self.space == "principal" or (self.space == "auto" and (not same or bool(self.dimensions)))

    def check_width(self, teacher: PretrainedConfig, width: int) -> None:
        """Check that the teacher's vectors have as many directions as a student is wide; ValueError where not."""
        theirs = SentenceHead.of(teacher).width(teacher)
        if self.is_principal(teacher, width) and width > theirs:
            told = f"{self.space} for a student of width {width}, more than the teacher's vectors have ({theirs})"
            raise ValueError(f"space: {told}; allowed: teacher")

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
        square = theirs.square().sum(dim=1).clamp(min=_LEAST_SQUARE)
        distance = 1 - torch.nn.functional.cosine_similarity(student, theirs, dim=1)
        return (distance + (student - theirs).square().sum(dim=1) / square).mean()

    def in_order(self, outputs: Outputs, rows: Dataset | None) -> Vectors:
        """Return the vectors of the texts of pairs in turn, (2 * pairs, width), in whatever order the rows come."""
        vectors = np.asarray(outputs)
        return vectors if rows is None else vectors[np.argsort(rows[PLACES])]

    @staticmethod
    def divergence(logits: Tensor, reference: Tensor, counted: Tensor | None = None) -> Tensor:
        """Compute the mean over texts of the squared distance of vectors from a reference's."""
        return (logits - reference).square().sum(dim=1).mean()

    def predictions(self, outputs: Outputs, rows: Dataset | None = None) -> Answers:
        """Return the cosine of each pair, float32 (pairs,), from the vectors of their texts in turn."""
        vectors = self.in_order(outputs, rows)
        return cosines(vectors[::2], vectors[1::2]).astype(np.float32)
