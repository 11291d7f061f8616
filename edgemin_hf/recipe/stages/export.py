"""The stage `export`: student and teacher as ONNX graphs, checked against PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic.dataclasses import dataclass

from edgemin_hf.export.onnx import check_derived, export_baseline, export_onnx
from edgemin_hf.neural_compressor.guest import merge_inc_configs
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import ArtefactEstimate
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Product, RecipeError
from edgemin_hf.recipe.stages.artefact_estimate import estimate_artefact
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.stages.distill import InnerDistillation
from edgemin_hf.tasks.masked_lm import MaskedLM
from edgemin_hf.training.record import trainings_before
from edgemin_hf.utils.edgemin_config import EdgeminConfig


@dataclass(config=STRICT)
class Export(WritingStage):
    """Export student and teacher to ONNX, and check the graphs against PyTorch on validation texts.

    Attributes:
        fidelity_texts: Number of validation texts that graphs are checked on.
        fused_attention: Whether a quantised student gets a second graph for ONNX Runtime 1.24 and newer alone, which
            computes the same in about three quarters of the time.
        batch: Texts of a further graph that takes no other shape, as NPUs want it; None makes none.
        length: Its tokens, likewise.
        openvino: Whether the student is written in OpenVINO's format too.

    Example:
        >>> from edgemin_hf.recipe.stages import Export
        >>> Export(fidelity_texts=64).leaves
        (<Product.GRAPHS: 'graphs'>,)
    """

    stage: Literal["export"] = "export"
    fidelity_texts: Count = 256
    fused_attention: bool = False
    batch: Count | None = None
    length: Count | None = None
    openvino: bool = False
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.STUDENT)
    leaves: ClassVar[tuple[Product, ...]] = (Product.GRAPHS,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.GRAPHS,)
    minutes: ClassVar[float] = 0.5

    @property
    def fixed_shape(self) -> tuple[int, int] | None:
        """Texts and tokens of the graph that takes no other shape."""
        if self.batch is None or self.length is None:
            return None
        return self.batch, self.length

    def check(self, context: Context) -> None:
        """Check that the student has the task's head, and that further graphs can be made."""
        if (self.batch is None) != (self.length is None):
            given, other = ("batch", "length") if self.length is None else ("length", "batch")
            raise RecipeError(f"{self.name}: {given} without {other}; allowed: both, or neither")
        check_derived(self.fixed_shape, self.openvino, context.task.max_length)
        # A cut of the vocabulary leaves the head that it finds.
        makers = [stage for stage in context.before(self) if Product.STUDENT in stage.leaves]
        maker = next((stage for stage in reversed(makers) if Product.VOCABULARY not in stage.leaves), None)
        if isinstance(maker, InnerDistillation) and maker.head(context) is not context.head:
            raise RecipeError(
                f"stages: {self.name} needs a student with the task's head, which {maker.name} does not leave; "
                "expected after it: task_distill"
            )

    def foretold(self, context: Context) -> ArtefactEstimate:
        """Return what the student's folder will take."""
        return estimate_artefact(
            context, self, fused=self.fused_attention, fixed_shape=self.fixed_shape, openvino=self.openvino
        )

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write the folders `student` and `teacher`, the latter where the two are to be compared."""
        student = context.student(self)
        assert student is not None  # noqa: S101 - the order of the stages is checked
        texts = context.task.texts(context.root, self.fidelity_texts, context.recipe.seed)
        task, longest = context.task, context.task.max_length
        headless = isinstance(task, MaskedLM) and not task.keep_head
        made = export_onnx(
            student.base_model if headless else student,
            context.student_tokenizer(self),
            folder / "student",
            texts=texts,
            task=None if headless else type(task),
            max_length=longest,
            fused_attention=self.fused_attention,
            fixed_shape=self.fixed_shape,
            openvino=self.openvino,
        )
        trained = [context.folder(other) for other in context.before(self) if Product.STUDENT in other.leaves]
        merge_inc_configs(trained, folder / "student")
        EdgeminConfig(trainings=trainings_before(student)).save_pretrained(folder / "student")
        replace(made.manifest, reading=task.reading).listing(folder / "student").write(folder / "student")
        if context.has_teacher and not headless:  # what gives hidden states is measured by nothing
            export_baseline(context.teacher_folder, folder / "teacher", task=type(context.task))
        checks = {entry.variant: entry.fidelity for entry in made.manifest.entries if entry.fidelity is not None}
        notes = [
            f"{name.upper()} graph differs from PyTorch by {check.error:.1e}, of {check.limit:.1e} allowed"
            for name, check in checks.items()
            if name != "fp32" or len(checks) == 1
        ]
        if self.fused_attention and not any(entry.fused for entry in made.manifest.entries):
            notes.append("no second graph: a student that is not quantised, or has nothing to fuse, gets none")
        return Outcome(notes=tuple(notes), fidelity=checks)
