"""The forward pass of a student in training, with the loss inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel

from edgemin_hf.distillation.base import Objective
from edgemin_hf.modeling.hooks import Recording, record, replaced_forward
from edgemin_hf.modeling.length_groups import record_by_length


class _Step(NamedTuple):
    student: PreTrainedModel
    own_forward: Callable[..., Mapping[str, Tensor]]
    teacher: Recording
    inputs: Mapping[str, Tensor]
    needs_logits: bool


class StudentForward:
    """Record the student, compare it with the teacher, and return the loss terms: what a training runs as forward.

    The loss is computed inside the model, not after it: DistributedDataParallel around it then finds in the outputs
    which parameters will get a gradient, those of learned projections too.

    Args:
        objectives: What the student is trained for.
        to_the_end: Whether to run all its layers in any case: for FSDP, whose wrappers around layers count on it.
    """

    def __init__(self, objectives: Sequence[Objective], *, to_the_end: bool) -> None:
        self._objectives = objectives
        self._activations = {one for objective in objectives for one in objective.student_activations}
        self._needs_logits = any(objective.needs_student_logits for objective in objectives)
        self._to_the_end = to_the_end
        self._step: _Step | None = None

    @contextmanager
    def replacing(
        self, student: PreTrainedModel, teacher: Recording, inputs: Mapping[str, Tensor], *, logits: bool
    ) -> Iterator[None]:
        """Run instead of a student's own forward inside the block, for one batch.

        Outside the model has its own: the one that accelerate wraps for mixed precision when a training begins, and
        that whoever runs the model for its predictions expects.

        Args:
            student: The student, as the trainer now has it: when a training begins, FSDP wraps it.
            teacher: What was recorded of the teacher.
            inputs: The batch, labels included.
            logits: Whether the student's logits are wanted, also where no objective reads them.
        """
        self._step = _Step(student, student.forward, teacher, inputs, logits or self._needs_logits)
        try:
            with replaced_forward(student, self):
                yield
        finally:
            self._step = None  # what was recorded need not live until the next step

    def __call__(self, **student_inputs: Tensor) -> dict[str, Tensor | None]:
        """Return the loss terms by name, None where the batch lacks what one needs.

        Beside them as "logits" the student's, detached, where they were computed.
        """
        assert self._step is not None  # noqa: S101 - `replacing` put it on the model
        student, own_forward, teacher, inputs, needs_logits = self._step
        if needs_logits or self._to_the_end:
            recording = record(
                student, self._activations, needs_logits, student_inputs, own_forward, to_the_end=self._to_the_end
            )
        else:
            recording = record_by_length(student, self._activations, student_inputs, own_forward)
        terms: dict[str, Tensor | None] = {}
        for index, objective in enumerate(self._objectives):
            for name, term in objective(recording, teacher, inputs).items():
                terms[f"{name}_{index}" if name in terms else name] = term
        return {**terms, "logits": None if recording.logits is None else recording.logits.detach()}


@contextmanager
def projections_in_model(student: PreTrainedModel, projections: nn.Module | None) -> Iterator[None]:
    """Make learned projections a part of the student while it trains: of its optimizer and its checkpoints."""
    if projections is None:
        yield
        return
    student.distillation_projections = projections
    try:
        yield
    finally:
        del student.distillation_projections
