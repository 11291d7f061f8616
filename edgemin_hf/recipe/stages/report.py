"""The stage `report`: the artefact, with its model, graphs, card, report and benchmark."""

from __future__ import annotations

import json
import shutil
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass
from transformers import AutoConfig

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.data.tables import Text
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.hub.identifiers import check_dataset, check_language, check_licence, is_hub_id
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
from edgemin_hf.recipe.stages.evaluate import calibrated_task
from edgemin_hf.recipe.stages.pictures import draw_pictures
from edgemin_hf.recipe.stages.rivals import read_rivals
from edgemin_hf.recipe.vector_measures import GIVEN_OUT, RETRIEVAL, read_given_out
from edgemin_hf.report.analysis import ShownAnalysis, shown_analysis
from edgemin_hf.report.by_test_set import by_test_set
from edgemin_hf.report.card import render_card
from edgemin_hf.report.card_facts import CardFacts
from edgemin_hf.report.page import finished_row, render_report, summary_table
from edgemin_hf.report.records import StageRecord
from edgemin_hf.report.rivals import rivals_text
from edgemin_hf.report.rivals_figure import draw_rivals
from edgemin_hf.report.tables import CaptionedTable, text_table
from edgemin_hf.report.vectors import VectorsOfCard, vectors_table
from edgemin_hf.rivals.compare import Comparison
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
        language: Language's code for the card, as the Hub takes it, or "multilingual".
        license: Licence of the student's weights, a Hub identifier such as apache-2.0.
        datasets: Hub ids of the datasets that it was made from.
        attribution: A sentence on whose work the data and the teacher are, and under which terms.
        test_set: What the task's metric is measured on, in words.
        repo_id: Where the card's snippets load the model from; "" is your-name/ and the recipe's name.

    Example:
        >>> from edgemin_hf.recipe.stages import Report
        >>> Report(title="My edge model").folder
        'artefact'
    """

    stage: Literal["report"] = "report"
    title: Words = "Edge model"
    language: str = "en"
    license: str = "apache-2.0"
    datasets: list[str] = field(default_factory=list)
    attribution: str = ""
    test_set: Words = "the test set"
    repo_id: str = ""
    own_folder: ClassVar[str] = "artefact"
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.BENCHMARK)
    leaves: ClassVar[tuple[Product, ...]] = (Product.ARTEFACT,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.ARTEFACT,)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_licence(self.license)
        check_language(self.language)
        for dataset in self.datasets:
            check_dataset(dataset)

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write the artefact."""
        shutil.copytree(context.folder_with(Product.GRAPHS) / "student", folder, dirs_exist_ok=True)
        shutil.copy(context.folder_with(Product.BENCHMARK) / "benchmark.json", folder)
        for name in (GIVEN_OUT, RETRIEVAL, ANALYSIS):
            if (measured := context.folder_with(Product.PREDICTIONS) / name).is_file():
                shutil.copy(measured, folder)
        benchmark = read_benchmark(context)
        task = _deployed_task(context, benchmark)
        replace(read_manifest(folder), reading=task.reading).write(folder)
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
        (folder / "README.md").write_text(card, encoding="utf-8")
        return Outcome()

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
        base = context.recipe.student.checkpoint if teacher.model is None else teacher.model
        assert base is not None  # noqa: S101 - the recipe's check
        mask = context.student_tokenizer(self).mask_token if isinstance(task, MaskedLM) else None
        facts = CardFacts(
            name=self.title,
            repo_id=self.repo_id or f"your-name/{context.recipe.name}",
            manifest=read_manifest(folder),
            languages=[self.language],
            licence=self.license,
            base_model=base if is_hub_id(base) and not (context.root / base).is_dir() else None,
            datasets=self.datasets,
            test_set=self.test_set,
            attribution=self.attribution,
            example=_example(context, mask),
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
        """Return the table of the benchmark's rows, that of test sets where there are several, and the rivals'."""
        benchmark, rivals = read_benchmark(context), self._rivals(context)
        by_set = self._by_set(context, benchmark)
        parts = [summary_table(benchmark)]
        parts += [] if by_set is None else [f"{by_set.caption}:\n\n{text_table(by_set.table)}"]
        parts += [] if rivals is None else [rivals_text(rivals)]
        return "\n\n".join(parts)

    def _by_set(self, context: Context, benchmark: Benchmark) -> CaptionedTable | None:
        return by_test_set(_results(context), benchmark, self.test_set)

    def _rivals(self, context: Context) -> Comparison | None:
        return None if context.maker(Product.RIVALS, before=self) is None else read_rivals(context)


def _deployed_task(context: Context, benchmark: Benchmark) -> Task:
    """Return the task with what was chosen for the model to deploy."""
    row = finished_row(benchmark.rows)
    return calibrated_task(context, (row.model, row.runtime, row.precision))


def _example(context: Context, mask: str | None) -> Text:
    """Return a text, or a pair, for the snippets: a pair too where texts are compared by their vectors.

    With a mask token a word in the middle of the text's beginning is masked, which no model is too short to read.
    """
    texts = context.task.texts(context.root, 1, context.recipe.seed)
    if mask is not None:
        words = str(texts[0]).split()[: min(24, context.task.max_length // 4)]
        return " ".join([*words[: len(words) // 2], mask, *words[len(words) // 2 + 1 :]])
    return (str(texts[0]), str(texts[1])) if isinstance(context.task, SentenceEmbedding) else texts[0]


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
