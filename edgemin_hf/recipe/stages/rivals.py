"""The stage `rivals`: the lazy ways to the same answers, beside the student if there is one yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from datasets import Dataset
from pydantic import Field
from pydantic.dataclasses import dataclass

from edgemin_hf.benchmark.whole_call import WholeCall
from edgemin_hf.data.tables import Text, read_table
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.fingerprint import content
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Count, Product
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.stages.evaluate import measured_files
from edgemin_hf.report.rivals import rivals_text
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.compare import Comparison, compare, make_rivals
from edgemin_hf.tasks.metrics import Answers
from edgemin_hf.utils.extras import check_extra

RivalName = Literal["bag_of_words", "static_embeddings", "frozen_encoder"]
FILE = "rivals.json"
_PACKAGES = {"bag_of_words": "sklearn", "static_embeddings": "model2vec.train"}


@dataclass(config=STRICT)
class Rivals(WritingStage):
    """Make the lazy ways to the same answers, and measure them on the test set, whole calls at one thread in turns.

    It may stand first, to tell what there is to beat, or after the export, to tell by how much the student does.

    Attributes:
        rivals: Which ones; static_embeddings are model2vec's, for labels alone.
        sentences: Number of texts, evenly spaced in the test set, that latency is measured on.
        rounds: Number of counted rounds over them.

    Example:
        >>> from edgemin_hf.recipe.stages import Rivals
        >>> Rivals(rivals=["bag_of_words"]).settings()
        {'stage': 'rivals', 'rivals': ['bag_of_words'], 'sentences': 300, 'rounds': 3}
    """

    stage: Literal["rivals"] = "rivals"
    rivals: Annotated[list[RivalName], Field(min_length=1)] = field(default_factory=lambda: list(get_args(RivalName)))
    sentences: Count = 300
    rounds: Count = 3
    leaves: ClassVar[tuple[Product, ...]] = (Product.RIVALS,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.RIVALS,)
    minutes: ClassVar[float] = 3.0

    def check(self, context: Context) -> None:
        """Check that what makes them is installed."""
        for name in {*_PACKAGES} & {*self.rivals}:
            check_extra("rivals", f"rivals: {name}", _PACKAGES[name])
        if "static_embeddings" in self.rivals and context.task.answer == "score":
            raise ValueError("rivals: static_embeddings for scores; allowed: bag_of_words, frozen_encoder")
        slow = not context.shapes.tokenizer.is_fast
        if slow or (context.has_teacher and not context.shapes.teacher_tokenizer.is_fast):
            raise ValueError("rivals: a slow tokenizer; allowed: a fast one (tokenizer.json), which whole calls run")

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the test set."""
        return {"test_file": content(context.root / context.task.test_file)}

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write what they are worth, and their files."""
        beside_student = context.maker(Product.GRAPHS, before=self) is not None
        # A teacher that is not fine-tuned yet knows no labels.
        names = context.task.labels(context.root)
        numbers = context.label_ids if beside_student else {name: number for number, name in enumerate(names)}
        given, labels = _given(context, numbers)
        made: list[tuple[Made, float | None]] = [*make_rivals(self.rivals, given, folder)]
        student = None
        if beside_student:
            student, *teacher = _exported(context, given)
            made += [(one, None) for one in teacher]
        found = compare(given, labels, made, student, self.sentences, self.rounds)
        (folder / FILE).write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
        return Outcome(notes=tuple(f"{row.name}: {row.value:.4f}" for row in found.rows))

    def summary(self, context: Context) -> str:
        """Return the table of the rivals, and the verdict."""
        return rivals_text(read_rivals(context))


def read_rivals(context: Context) -> Comparison:
    """Read what the stage found."""
    file = context.folder_with(Product.RIVALS) / FILE
    return Comparison.from_dict(json.loads(file.read_text(encoding="utf-8")))


def _given(context: Context, numbers: Mapping[str, int]) -> tuple[Given, Answers]:
    """Return what rivals are made of, and the test rows' labels."""
    task, root, seed = context.task, context.root, context.recipe.seed
    tables = [task.train_table(root, seed), task.validation_table(root, seed), read_table(root / task.test_file)]
    train, validation, test = (_texts(table, task.text_columns) for table in tables)
    truths = [np.array(task.encoded(table, numbers)) for table in tables]
    student = context.recipe.student
    encoder = Path(context.base_folder if context.has_teacher else context.checkpoint_folder(student))
    return Given(task, encoder, numbers, train, truths[0], validation, truths[1], test, seed), truths[2]


def _texts(table: Dataset, columns: list[str]) -> list[Text]:
    sides = [list(table[column]) for column in columns]
    return sides[0] if len(sides) == 1 else list(zip(*sides, strict=True))


def _exported(context: Context, given: Given) -> list[Made]:
    """Return the student, by the smallest graph that was exported, and a fine-tuned teacher's dynamic INT8."""
    graphs = {row: file for row, file in measured_files(context).items() if row[1] == "onnxruntime"}
    student = min((row for row in graphs if row[0] == "student"), key=lambda row: graphs[row].size_bytes)
    folders = {student: context.folder_with(Product.GRAPHS) / "student"}
    if context.has_teacher:
        teacher = ("teacher", "onnxruntime", "int8")
        folders[teacher] = graphs[teacher].path.parent
    made = []
    for row, folder in folders.items():
        words = folder / "tokenizer.json"
        call = WholeCall(graphs[row].path, words, given.task.max_length)
        scores = np.concatenate([call(text) for text in given.test])
        size = graphs[row].size_bytes + words.stat().st_size
        name = f"{'this ' if row[0] == 'student' else 'fine-tuned '}{row[0]}, {row[2].upper().replace('FP32', 'fp32')}"
        made.append(Made(name, scores, size, call))
    return made
