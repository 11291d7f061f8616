"""The stage `rivals`: the lazy ways to the same answers, beside the student if there is one yet."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from accelerate import PartialState
from pydantic import Field
from pydantic.dataclasses import dataclass

from edgemin_hf.benchmark.rows import deployed
from edgemin_hf.modeling.auto_class import configured_for
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimate
from edgemin_hf.recipe.fingerprint import content, student_inputs
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Product, Student
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.recipe.stages.evaluate import measured_files
from edgemin_hf.recipe.stages.labels_alone import labels_alone, train_on_labels, training_on_labels
from edgemin_hf.report.rivals import rivals_text
from edgemin_hf.rivals.base import Given, Made, Maker
from edgemin_hf.rivals.compare import Comparison, compare, make_rivals
from edgemin_hf.rivals.graphs import TOKENIZER, made_of_graph
from edgemin_hf.rivals.known import RIVALS
from edgemin_hf.runtime.artefact import unfused
from edgemin_hf.tasks.class_weights import label_loss
from edgemin_hf.tasks.labels import labels_of
from edgemin_hf.tasks.metrics import Answers
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.extras import check_extra

RivalName = Literal["bag_of_words", "static_embeddings", "frozen_encoder", "openvino", "labels_alone"]
FILE = "rivals.json"
_OF_TEXTS = ("bag_of_words", "static_embeddings")
"""Those that read a text as a whole."""
_OF_A_RUN = ("openvino", "labels_alone")
"""Those that stand beside a student alone: they need its teacher's graphs, or are trained as it was."""


@dataclass(config=STRICT)
class Rivals(Stage):
    """Make the lazy ways to the same answers, and measure them on the test set, whole calls at one thread in turns.

    It may stand first, to tell what there is to beat, or after the export, to tell by how much the student does.

    Attributes:
        rivals: Which ones; None takes all that can be made here, and says which could not. static_embeddings are
            model2vec's, for labels alone; openvino and labels_alone are made after the export alone.
        sentences: Number of texts, evenly spaced in the test set, that latency is measured on.
        rounds: Counted rounds over these texts.

    Example:
        >>> from edgemin_hf.recipe.stages import Rivals
        >>> Rivals(rivals=["bag_of_words"]).settings()
        {'stage': 'rivals', 'rivals': ['bag_of_words'], 'sentences': 300, 'rounds': 3}
    """

    stage: Literal["rivals"] = "rivals"
    rivals: Annotated[list[RivalName], Field(min_length=1)] | None = None
    sentences: Count = 300
    rounds: Count = 3
    leaves: ClassVar[tuple[Product, ...]] = (Product.RIVALS,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.RIVALS,)
    every_process: ClassVar[bool] = True  # for the one that is trained; the first one does all else
    resumes: ClassVar[bool] = False
    minutes: ClassVar[float] = 3.0

    def check(self, context: Context) -> None:
        """Check that those asked for by name can be made, and that there are labels for one that learns."""
        if not context.task.learns_labels:
            raise ValueError(f"stage: rivals for {context.task.type}, which has no labels; allowed: without it")
        for name in self.rivals or ():
            if not self._comes_later(name, context):
                try:
                    _check_possible(name, context)
                except ValueError as error:
                    raise ValueError(f"rivals: {error}") from None
        made, left_out = self.chosen(context)
        if not made and not self._beside_student(context):
            raise ValueError(f"rivals: none that can be made here: {'; '.join(left_out)}")
        slow = not context.shapes.tokenizer.is_fast
        if slow or (context.has_teacher and not context.shapes.teacher_tokenizer.is_fast):
            raise ValueError("rivals: a slow tokenizer; allowed: a fast one (tokenizer.json), which whole calls run")

    def chosen(self, context: Context) -> tuple[list[str], list[str]]:
        """Return the names of the rivals that are made, and a line on each that is left out."""
        made, left_out = [], []
        for name in self.rivals or get_args(RivalName):
            try:
                if self._comes_later(name, context):
                    raise ValueError(f"{name} before there is a student; allowed: after the stage export")
                _check_possible(name, context)
                made.append(name)
            except ValueError as error:
                left_out.append(str(error))
        return made, left_out

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the test set, which rivals are made, and of what encoder where a table teaches."""
        test = content(context.task.path(context.root, "test"))
        encoder = {} if context.has_teacher else {"encoder": student_inputs(context, context.recipe.student)}
        return {"test_file": test, "made": self.chosen(context)[0], **encoder}

    def estimate(self, context: Context) -> Estimate:
        """Return what it will cost: a training, and little beside it."""
        if "labels_alone" not in self.chosen(context)[0]:
            return super().estimate(context)
        stage = training_on_labels(context)
        return Estimate(self.minutes + context.estimator.training(stage, stage.work(context)).minutes)

    def run(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Make and measure them. See `Stage.run`."""
        if PartialState().is_main_process:
            with atomic_folder(folder) as partial_folder:
                return self._write(context, partial_folder, work)
        if "labels_alone" in self.chosen(context)[0]:
            train_on_labels(context, work)
        return Outcome()

    def _write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write what they are worth, and their files."""
        names, left_out = self.chosen(context)
        given, labels = _given(context, self._beside_student(context))
        makers: dict[str, Maker] = {**RIVALS, "labels_alone": partial(labels_alone, context, work)}
        made = make_rivals({name: makers[name] for name in names}, given, folder)
        student = None
        if self._beside_student(context):
            student, *teacher = _exported(context, given)
            made += [(one, None) for one in teacher]
        found = compare(given, labels, made, student, self.sentences, self.rounds, left_out)
        (folder / FILE).write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
        return Outcome(notes=tuple(f"{row.name}: {row.value:.4f}" for row in found.rows))

    def summary(self, context: Context) -> str:
        """Return the table of the rivals, and the verdict."""
        return rivals_text(read_rivals(context))

    def _beside_student(self, context: Context) -> bool:
        return context.maker(Product.GRAPHS, before=self) is not None

    def _comes_later(self, name: str, context: Context) -> bool:
        return name in _OF_A_RUN and not self._beside_student(context)


def _check_possible(name: str, context: Context) -> None:
    """Check that what makes a rival is installed, and that it suits the recipe; ValueError if not."""
    if name in _OF_TEXTS and context.task.ragged:
        raise ValueError(f"{name} for {context.task.type}; allowed: for tasks on whole texts")
    if name == "frozen_encoder" and not context.task.fits_head:
        raise ValueError(f"{name} for {context.task.type}, whose head is not fitted alone; allowed: for other tasks")
    if name == "static_embeddings":
        if context.task.problem_type == "regression":
            raise ValueError("static_embeddings for scores; allowed: for labels")
        check_extra("rivals", name, "model2vec.train")
    elif name == "openvino":
        if not context.has_teacher:
            raise ValueError("openvino of a teacher that is a table; allowed: with teacher.model")
        check_extra("openvino", name)
    elif name == "labels_alone" and context.recipe.student == Student():
        raise ValueError("labels_alone of a copy of the teacher, which is the teacher; allowed: with a student's shape")


def read_rivals(context: Context) -> Comparison:
    """Read what the stage found."""
    file = context.folder_with(Product.RIVALS) / FILE
    return Comparison.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _given(context: Context, beside_student: bool) -> tuple[Given, Answers]:
    """Return what rivals are made of, and the truth of the test rows."""
    task, root, seed = context.task, context.root, context.recipe.seed
    tables = (*task.tables(root, seed), task.table(root, "test"))
    names = task.labels(root)
    # A teacher that is not fine-tuned yet knows no labels.
    numbers = context.label_ids if beside_student else {name: number for number, name in enumerate(names)}
    train, validation, test = (list(task.texts_in(table)) for table in tables)
    learned = [np.array([] if task.ragged else task.encoded(table, numbers)) for table in tables[:2]]
    own = context.base_folder if context.has_teacher else context.checkpoint_folder(context.recipe.student)
    return Given(
        task=task,
        encoder=Path(own),
        knows_task=_knows_task(context, names, beside_student),
        label_ids=numbers,
        train=train,
        labels=learned[0],
        validation=validation,
        validation_labels=learned[1],
        test=test,
        seed=seed,
        teacher=_graphs(context) / "teacher" if beside_student and context.has_teacher else None,
        tables=tables if task.ragged else None,
        loss=label_loss(task, root, numbers, seed),
    ), task.references(task.tokenized(tables[2], context.tokenizer, numbers))


def _knows_task(context: Context, names: list[str], beside_student: bool) -> bool:
    """Return whether the rivals' encoder was fine-tuned on the task before: used as it is, or with the same labels."""
    if beside_student and context.has_teacher and context.maker(Product.TEACHER) is None:
        return True
    task, config = context.task, context.shapes.teacher if context.has_teacher else context.shapes.student
    has_head = configured_for(config, task.auto_class) and task.compatible(config)
    return has_head and task.compares_label_names and set(labels_of(config)) == set(names)


def _graphs(context: Context) -> Path:
    return context.folder_with(Product.GRAPHS)


def _exported(context: Context, given: Given) -> list[Made]:
    """Return the student, by its graph to deploy, and a fine-tuned teacher's dynamic INT8."""
    graphs = {row: file for row, file in measured_files(context).items() if row[1] == "onnxruntime"}
    kept = [("this student", deployed(list(graphs)), _graphs(context) / "student" / TOKENIZER)]
    if context.has_teacher:
        teacher = ("teacher", "onnxruntime", "int8")
        kept.append(("fine-tuned teacher", teacher, graphs[teacher].path.with_name(TOKENIZER)))
    return [
        made_of_graph(name, graphs[row].path, unfused(row[2]), graphs[row].size_bytes, given, words)
        for name, row, words in kept
    ]
