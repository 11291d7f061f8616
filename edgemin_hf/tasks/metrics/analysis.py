"""What is told of a student beyond its metric: what a picky reader asks of a model that is to stand for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgemin_hf.tasks.metrics.agreement import Agreement
from edgemin_hf.tasks.metrics.calibration import Calibration
from edgemin_hf.tasks.metrics.class_changes import ClassChange
from edgemin_hf.tasks.metrics.slices import Group, Slices
from edgemin_hf.utils.records import Record


@dataclass(frozen=True)
class Analysis(Record):
    """A student's file to deploy beside its teacher, on the test table; what does not apply is at its default.

    Attributes:
        teacher: Model, runtime and precision of the teacher that it is compared with; None where there is none.
        student: Those of the student's file.
        agreement: How far the two give the same answers.
        classes: What each class lost or gained, the greatest loss first.
        calibration: The calibration of "teacher" and "student", of classifiers that give one label.
        slices: What they are worth on groups of examples.
        robustness: What they are worth on the test texts as they are, and as hasty people write them.

    Example:
        >>> from edgemin_hf.tasks.metrics.analysis import Analysis
        >>> Analysis(teacher=None, student=("student", "onnxruntime", "int8")).to_dict()
        {'teacher': None, 'student': ['student', 'onnxruntime', 'int8']}
    """

    teacher: tuple[str, str, str] | None
    student: tuple[str, str, str]
    agreement: Agreement | None = None
    classes: tuple[ClassChange, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    slices: tuple[Slices, ...] = ()
    robustness: tuple[Group, ...] = ()
