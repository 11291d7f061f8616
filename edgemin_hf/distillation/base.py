"""The seam that every distillation method fits: settings that build an objective, and the objective itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from edgemin_hf.data.masking import Collation
from edgemin_hf.modeling.encoder import Activation, Encoder
from edgemin_hf.modeling.families import Shape
from edgemin_hf.modeling.hooks import Recording
from edgemin_hf.utils.settings import Settings


class Objective(Protocol):
    """What a student is trained for: the tensors that it needs, and the named loss terms that it makes of them.

    Attributes:
        student_activations: Tensors of the student that it reads.
        teacher_activations: Tensors of the teacher that it reads.
        needs_student_logits: Whether it reads the student's logits.
        needs_teacher_logits: Whether it reads the teacher's.
        projections: Learned maps from the student's widths to the teacher's; None where it has none. They are trained
            and checkpointed with the student, and no part of what it becomes.
    """

    @property
    def student_activations(self) -> Sequence[Activation]: ...  # noqa: D102 - above

    @property
    def teacher_activations(self) -> Sequence[Activation]: ...  # noqa: D102

    @property
    def needs_student_logits(self) -> bool: ...  # noqa: D102

    @property
    def needs_teacher_logits(self) -> bool: ...  # noqa: D102

    @property
    def projections(self) -> nn.Module | None: ...  # noqa: D102

    def __call__(
        self, student: Recording, teacher: Recording, inputs: Mapping[str, Tensor]
    ) -> Mapping[str, Tensor | None]:
        """Return the weighted loss terms, each a scalar: a mean over the examples of the batch.

        In training ValueError where the inputs lack what a term needs, such as labels; without gradients None for it.
        """
        ...


class DistillationConfig(Protocol):
    """A method's settings, which know how to build its objective."""

    def objective(self, student: Encoder, teacher: Encoder | None) -> Objective:
        """Build the objective for two models; ValueError where they do not fit."""
        ...


class Method(Settings, DistillationConfig):
    """What a recipe has to know of a method, beside its settings and its objective; a method's settings derive from it.

    Attributes:
        method: Its name in a recipe.
        teacher_head: The head that its teacher must have and its student gets; None where any will do.
        learns_labels: Whether it needs labelled examples.
        compares_outputs: Whether it compares what the heads of a task give.

    Example:
        >>> from edgemin_hf.distillation import METHODS, Method
        >>> all(issubclass(config, Method) for config in METHODS.values())
        True
        >>> METHODS["distilbert"].teacher_head
        'masked_lm'
    """

    method: ClassVar[str]
    teacher_head: ClassVar[Literal["masked_lm"] | None] = None
    learns_labels: ClassVar[bool] = False
    compares_outputs: ClassVar[bool] = False

    def check_shapes(self, student: Shape, teacher: Shape) -> None:
        """Check the settings against two models' shapes; ValueError where they do not fit."""

    def check_task(self, problem_type: str) -> None:
        """Check the settings against the kind of head (or the task's type, where it has no name); else ValueError."""

    def collation(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> Collation | None:
        """Return how batches are made; None where padding, or blocks of one length, will do."""
        return None
