"""What a model card is told of a finished model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.data.tables import Text
from edgemin_hf.export.manifest import Manifest
from edgemin_hf.report.analysis import ShownAnalysis
from edgemin_hf.report.records import StageRecord
from edgemin_hf.report.tables import CaptionedTable
from edgemin_hf.report.vectors import VectorsOfCard
from edgemin_hf.rivals.compare import Comparison
from edgemin_hf.tasks.question_answering import QuestionAnswering


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is told.

    Attributes:
        name: Name of the model, the card's heading.
        repo_id: Where the snippets load the model from: its repository on the Hub, such as "me/banking-edge".
        manifest: The manifest of the artefact.
        languages: Codes of the languages that it was trained on, such as "en"; none where nobody told.
        licence: The Hub's identifier of the weights' licence, such as "apache-2.0".
        base_model: Hub id of the teacher, or of what the student began as where no model was the teacher; None where it
            has none, since the Hub refuses a card that names a folder.
        datasets: Hub ids of the datasets that it was made from, the one that it was tested on first.
        teacher_datasets: Those that the teacher's card names, where no others are told; it was tested on none of them.
        licence_terms: Name and link of the licence "other", as the Hub's metadata has them.
        test_set: What the metric was measured on, in words, such as "the test set of Banking77".
        attribution: Whose work the data and the teacher are and under which terms, in Markdown.
        example: A text for the snippets, or a pair of texts.
        max_length: Tokens after which texts were cut in training.
        benchmark: As for `edgemin_hf.report.page.render_report`.
        stages: As for `edgemin_hf.report.page.render_report`.
        recipe_yaml: The recipe that made the model.
        plain: The major releases of `transformers` that load the checkpoint by themselves.
        pipeline_arguments: What a call of the pipeline needs to give all that the model says.
        threshold: Probability from which a label is given, where a text may get any number of them.
        fast: Whether its tokenizer is a fast one, which the runtime can load.
        rivals: What the student was measured against, if it was.
        pooled: Whether its head reads the mean of the tokens, for which `transformers` has no class.
        teachers: Number of models whose mean it learned from.
        predictions: Name of the table that was the teacher; None where a model was.
        questions: The task, with what was chosen for the model to deploy, where that answers questions.
        vectors: What is told of vectors, of a model that gives some; `example` is then a pair of texts.
        by_set: What models are worth on each test set, where there are several.
        activation: Name of the function that makes a score of the logit, of a model that ranks passages.
        labels: Names of its labels.
        mask: The mask token, of a model that predicts masked tokens; `example` then holds it.
        analysis: What is told of it beside its teacher.
    """

    name: str
    repo_id: str
    manifest: Manifest
    languages: Sequence[str]
    licence: str
    base_model: str | None
    datasets: Sequence[str]
    test_set: str
    attribution: str
    example: Text
    max_length: int
    benchmark: Benchmark
    stages: Sequence[StageRecord]
    recipe_yaml: str
    plain: Collection[int] = (4, 5)
    pipeline_arguments: Mapping[str, object] = field(default_factory=dict)
    threshold: float | None = None
    fast: bool = True
    rivals: Comparison | None = None
    pooled: bool = False
    teachers: int = 1
    predictions: str | None = None
    questions: QuestionAnswering | None = None
    vectors: VectorsOfCard | None = None
    by_set: CaptionedTable | None = None
    activation: str | None = None
    labels: Collection[str] = ()
    mask: str | None = None
    teacher_datasets: Sequence[str] = ()
    licence_terms: Mapping[str, str] = field(default_factory=dict)
    analysis: ShownAnalysis | None = None
