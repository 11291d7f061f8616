"""The stage `report`: the artefact, with its model, graphs, card, report and benchmark."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass
from transformers import AutoConfig

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.hub.identifiers import check_dataset, check_language, check_licence
from edgemin_hf.hub.privacy import publishable
from edgemin_hf.modeling.cross_encoder import activation_of
from edgemin_hf.modeling.pooling import saved_as_our_class
from edgemin_hf.modeling.pruned_shape import plain_releases
from edgemin_hf.recipe.analysis import ANALYSIS, read_analysis
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.stages.benchmark import read_benchmark
from edgemin_hf.recipe.stages.card_metadata import CardMetadata, card_metadata
from edgemin_hf.recipe.stages.evaluate import calibrated_task
from edgemin_hf.recipe.stages.gate import Gate
from edgemin_hf.recipe.stages.pictures import draw_pictures
from edgemin_hf.recipe.stages.rivals import read_rivals
from edgemin_hf.recipe.vector_measures import GIVEN_OUT, RETRIEVAL, read_given_out
from edgemin_hf.report.analysis import ShownAnalysis, shown_analysis
from edgemin_hf.report.by_test_set import by_test_set
from edgemin_hf.report.card import render_card
from edgemin_hf.report.card_facts import CardFacts
from edgemin_hf.report.ending import five_lines
from edgemin_hf.report.example_text import as_argument, check_example, example_text
from edgemin_hf.report.page import finished_row, render_report
from edgemin_hf.report.records import StageRecord
from edgemin_hf.report.rivals_figure import draw_rivals
from edgemin_hf.report.tables import CaptionedTable
from edgemin_hf.report.vectors import VectorsOfCard, vectors_table
from edgemin_hf.rivals.compare import Comparison
from edgemin_hf.runtime.artefact import CARD
from edgemin_hf.tasks.base import Task
from edgemin_hf.tasks.masked_lm import MaskedLM
from edgemin_hf.tasks.metrics import Measurement
from edgemin_hf.tasks.question_answering import QuestionAnswering
from edgemin_hf.tasks.reranking import Reranking
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding

Words = Annotated[str, Field(pattern=r"\S")]


@dataclass(config=STRICT)
class Report(WritingStage):
    """Write the artefact: model, graphs, card, report, benchmark.

    Attributes:
        title: Name of the model in card and report.
        language: Language's code for the card, as the Hub takes it, or "multilingual"; None takes those of the
            teacher's card, if it has some.
        license: Licence of the student's weights, a Hub identifier such as apache-2.0; None takes that of the teacher's
            card, or "unknown".
        datasets: Hub ids of the datasets that it was made from, that of the test set first; None takes those of the
            teacher's card.
        attribution: A sentence on whose work the data and the teacher are, and under which terms.
        test_set: What the task's metric is measured on, in words.
        example: What the card's snippets ask about, a text or a list of two for a task that reads pairs; None takes a
            neutral sentence.
        repo_id: Where the card's snippets load the model from until it is pushed; "" is your-name/ and the recipe's
            name.
        gate: What the artefact must reach to be pushed; it stands in its manifest.

    Example:
        >>> from edgemin_hf.recipe.stages import Report
        >>> Report(title="My edge model").folder
        'artefact'
    """

    stage: Literal["report"] = "report"
    title: Words = "Edge model"
    language: str | None = None
    license: str | None = None
    datasets: list[str] | None = None
    attribution: str = ""
    test_set: Words = "the test set"
    example: str | list[str] | None = None
    repo_id: str = ""
    gate: Gate = field(default_factory=Gate)
    own_folder: ClassVar[str] = "artefact"
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.BENCHMARK)
    leaves: ClassVar[tuple[Product, ...]] = (Product.ARTEFACT,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.ARTEFACT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.license is not None:
            check_licence(self.license)
        if self.language is not None:
            check_language(self.language)
        for dataset in self.datasets or ():
            check_dataset(dataset)

    def check(self, context: Context) -> None:
        """Check that the example is one that the task reads, and that what the gate bounds will be measured."""
        check_example(context.task, self.example)
        if self.gate.retention is None:
            return
        if not context.has_teacher:
            raise ValueError(f"gate.retention: {self.gate.retention} without teacher.model; allowed: beside a teacher")
        metric = context.task.metrics[0]
        if not metric.greater_is_better:
            raise ValueError(f"gate.retention: {self.gate.retention} of {metric.name}; allowed: of what should be high")

    def inputs(self, context: Context) -> dict[str, object]:
        """Return what the card tells of where the model comes from, of which the teacher's card may be the source."""
        return {"card": asdict(self._metadata(context))}

    def _metadata(self, context: Context) -> CardMetadata:
        return card_metadata(context, self.language, self.license, self.datasets)

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write the artefact."""
        shutil.copytree(context.folder_with(Product.GRAPHS) / "student", folder, dirs_exist_ok=True)
        shutil.copy(context.folder_with(Product.BENCHMARK) / "benchmark.json", folder)
        for name in (GIVEN_OUT, RETRIEVAL, ANALYSIS):
            if (measured := context.folder_with(Product.PREDICTIONS) / name).is_file():
                shutil.copy(measured, folder)
        benchmark = read_benchmark(context)
        task = _deployed_task(context, benchmark)
        settings = publishable(context.settings, context.root)
        recipe_yaml = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
        (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
        described = json.dumps(benchmark.environment.to_dict(), indent=2)
        (folder / "environment.json").write_text(described + "\n", encoding="utf-8")
        analysis = read_analysis(context.folder_with(Product.PREDICTIONS))
        pictures, stages = draw_pictures(context, benchmark, analysis), context.finished_records()
        told_beside = None if analysis is None else shown_analysis(analysis, context.task.metric_name)
        (folder / "figures").mkdir()
        for name, (_, svg) in pictures.items():
            (folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
        rivals = self._rivals(context)
        front = None if rivals is None else draw_rivals(rivals)
        if front is not None:
            (folder / "figures" / "rivals.svg").write_text(front, encoding="utf-8")
        captioned = dict(pictures.values())
        told = _taught_by(context), _measured(context, benchmark)
        by_set = self._by_set(context, benchmark)
        vectors = _vectors(context, benchmark)
        shown = None if vectors is None else vectors_table(vectors.given_out)
        page = render_report(self.title, benchmark, stages, captioned, rivals, front, *told, by_set, shown, told_beside)
        (folder / "report.html").write_text(page, encoding="utf-8")
        card = self._card(context, folder, benchmark, stages, recipe_yaml, rivals, task, vectors, told_beside)
        (folder / CARD).write_text(card, encoding="utf-8")
        gate = self.gate.bounds(benchmark)
        replace(read_manifest(folder), reading=task.reading, gate=gate).listing(folder).write(folder)
        return Outcome(notes=tuple(f"the gate: {bound.missed}" for bound in gate if bound.missed is not None))

    def _card(
        self,
        context: Context,
        folder: Path,
        benchmark: Benchmark,
        stages: list[StageRecord],
        recipe_yaml: str,
        rivals: Comparison | None,
        task: Task,
        vectors: VectorsOfCard | None,
        analysis: ShownAnalysis | None,
    ) -> str:
        teacher, config = context.recipe.teacher, AutoConfig.from_pretrained(folder)
        mask = context.student_tokenizer(self).mask_token if isinstance(task, MaskedLM) else None
        facts = CardFacts(
            name=self.title,
            repo_id=self.repo_id or f"your-name/{context.recipe.name}",
            manifest=read_manifest(folder),
            **vars(self._metadata(context)),
            test_set=self.test_set,
            attribution=self.attribution,
            example=example_text(context.task, self.example, mask),
            max_length=context.task.max_length,
            benchmark=benchmark,
            stages=stages,
            recipe_yaml=recipe_yaml,
            plain=plain_releases(config),
            pooled=saved_as_our_class(config),
            fast=(folder / "tokenizer.json").is_file(),
            pipeline_arguments=context.task.pipeline_arguments,
            threshold=context.task.threshold,
            rivals=rivals,
            teachers=1 + len(teacher.ensemble),
            predictions=None if teacher.predictions is None else Path(teacher.predictions).name,
            questions=task if isinstance(task, QuestionAnswering) else None,
            vectors=vectors,
            by_set=self._by_set(context, benchmark),
            activation=activation_of(config) if isinstance(task, Reranking) else None,
            labels=list(config.id2label.values()),
            mask=mask,
            analysis=analysis,
        )
        return render_card(facts)

    def summary(self, context: Context) -> str:
        """Return five lines on what was made; the tables stand in its page."""
        folder, task = context.folder(self), context.task
        benchmark, stages = read_benchmark(context), context.finished_records()
        asked = None if isinstance(task, MaskedLM) else as_argument(example_text(task, self.example))
        return five_lines(self.title, benchmark, read_manifest(folder), stages, folder, self.test_set, asked)

    def _by_set(self, context: Context, benchmark: Benchmark) -> CaptionedTable | None:
        return by_test_set(_results(context), benchmark, self.test_set)

    def _rivals(self, context: Context) -> Comparison | None:
        return None if context.maker(Product.RIVALS, before=self) is None else read_rivals(context)


def _deployed_task(context: Context, benchmark: Benchmark) -> Task:
    """Return the task with what was chosen for the model to deploy."""
    row = finished_row(benchmark.rows)
    return calibrated_task(context, (row.model, row.runtime, row.precision))


def _vectors(context: Context, benchmark: Benchmark) -> VectorsOfCard | None:
    """Return what card and page tell of vectors: those of the graph to deploy; None of a model that gives none."""
    task, row = context.task, finished_row(benchmark.rows)
    if not isinstance(task, SentenceEmbedding):
        return None
    told = read_given_out(context.folder_with(Product.PREDICTIONS), f"{row.model}_{row.runtime}_{row.precision}")
    principal = task.is_principal(context.shapes.teacher, context.shapes.student.hidden_size)
    return VectorsOfCard(told, principal, task.prompt)


def _measured(context: Context, benchmark: Benchmark) -> Measurement:
    """Return all that was measured of the row to deploy."""
    row = finished_row(benchmark.rows)
    return _results(context)[f"{row.model}_{row.runtime}_{row.precision}"]


def _results(context: Context) -> dict[str, Measurement]:
    """Return all that was measured."""
    file = context.folder_with(Product.PREDICTIONS) / "results.json"
    found: dict[str, Measurement] = json.loads(file.read_text("utf-8"))
    return found


def _taught_by(context: Context) -> str:
    """Return what the student learned from, by the names that the published recipe has."""
    teacher = context.recipe.teacher
    names = [name for name in (teacher.model, *teacher.ensemble, teacher.predictions) if name is not None]
    shown = publishable({name: name for name in names}, context.root).values()
    return f"{'predictions' if teacher.model is None else 'teacher'}: {', '.join(map(str, shown))}"
