"""Write the model card: metadata for the Hub, and a text with the measured numbers for its reader."""

import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from huggingface_hub import EvalResult, ModelCardData

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow
from edgemin_hf.data.tables import Text
from edgemin_hf.export.manifest import Manifest
from edgemin_hf.report.page import (
    RUNTIMES,
    conditions,
    finished_row,
    headline,
    result_table,
    stage_table,
)
from edgemin_hf.report.records import StageRecord
from edgemin_hf.report.rivals import how_to_read, in_words, rivals_table, verdict
from edgemin_hf.report.snippets import literal, reading_arguments, snippets
from edgemin_hf.report.tables import TEXT_COLUMNS, Table
from edgemin_hf.report.templates import fill_part, fill_template
from edgemin_hf.report.vectors import VectorsOfCard, vectors_table
from edgemin_hf.rivals.compare import Comparison
from edgemin_hf.runtime.loading import MODELS
from edgemin_hf.tasks.known import TASKS
from edgemin_hf.tasks.metrics import metric_named
from edgemin_hf.tasks.question_answering import QuestionAnswering
from edgemin_hf.utils.hardware import Environment

_TRAINED_TAG, _UNTRAINED_TAG = "quantization-aware-training", "post-training-quantization"
"""What a stage that quantises is tagged with, and what that becomes where nothing was trained from there on."""


def render_card(
    *,
    name: str,
    repo_id: str,
    manifest: Manifest,
    languages: Sequence[str],
    licence: str,
    base_model: str | None,
    datasets: Sequence[str],
    test_set: str,
    attribution: str,
    example: Text,
    max_length: int,
    benchmark: Benchmark,
    stages: Sequence[StageRecord],
    recipe_yaml: str,
    plain: Collection[int] = (4, 5),
    pipeline_arguments: Mapping[str, object] = MappingProxyType({}),
    threshold: float | None = None,
    fast: bool = True,
    rivals: Comparison | None = None,
    pooled: bool = False,
    teachers: int = 1,
    predictions: str | None = None,
    questions: QuestionAnswering | None = None,
    vectors: VectorsOfCard | None = None,
) -> str:
    """Render the README of a finished model from `model_cards/template.md`.

    Args:
        name: Name of the model, the card's heading.
        repo_id: Where the snippets load the model from: its repository on the Hub, such as "me/banking-edge".
        manifest: The manifest of the artefact.
        languages: Codes of the languages that it was trained on, such as "en".
        licence: The Hub's identifier of the weights' licence, such as "apache-2.0".
        base_model: Hub id of the teacher, or of what the student began as where no model was the teacher; None where it
            has none, since the Hub refuses a card that names a folder.
        datasets: Hub ids of the datasets that it was made from, the one that it was tested on first.
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

    Returns:
        The card: YAML front matter and Markdown.

    Raises:
        ValueError: The template uses a variable that does not exist, or the manifest does not list the model to deploy.
    """
    title, rows = " ".join(name.split()), benchmark.rows
    metric = metric_named(_measured_by(rows))
    tokens = TASKS[manifest.task].answer == "tags"
    if questions is not None:
        pipeline_arguments = reading_arguments(questions)
    finished = finished_row(rows)
    deployed = manifest.entry(finished.runtime, finished.precision)
    if deployed is None:
        raise ValueError(f"manifest: lists no {finished.precision} for {finished.runtime}; expected: what was measured")
    tags, untrained = _tags(stages)
    of_vectors = () if vectors is None else ("sentence-transformers", "feature-extraction")
    data = ModelCardData(
        base_model=base_model,
        datasets=list(datasets) or None,
        eval_results=_eval_results(finished, manifest.pipeline_tag, [*datasets, test_set][0], test_set),
        language=list(languages),
        library_name="transformers" if vectors is None else "sentence-transformers",
        license=licence,
        metrics=sorted({row.metric for row in rows if row.metric is not None}),
        model_name=title,
        pipeline_tag=manifest.pipeline_tag,
        tags=["onnx", "optimum", finished.precision, "edge", *of_vectors, *tags],
    )
    variables = {
        **_measured(benchmark),
        **({"prompt": None, "space": None} if vectors is None else vectors.words()),
        "vectors": None if vectors is None else markdown_table(vectors_table(vectors.given_out)),
        **snippets(
            example, pipeline_arguments, None if tokens or questions else max_length, asks=questions is not None
        ),
        "head": TASKS[manifest.task].auto_class.__name__.removeprefix("AutoModel"),
        "tokens": tokens,
        "name": title,
        "task_name": "multi-label " * (threshold is not None) + manifest.pipeline_tag.replace("-", " "),
        "base_model": base_model,
        "untrained": untrained,
        "graph": Path(deployed.file).name,
        "files": markdown_table(_file_table(manifest)),
        "repo_id": literal(repo_id),
        "task": literal(manifest.pipeline_tag),
        "regression": metric.local is not None and metric.local.answers == ("score",),
        "threshold": threshold,
        "metric": _capitalized(metric.title),
        "max_length": max_length,
        "stages": markdown_table(stage_table(stages)),
        "plain": plain,
        "pooled": pooled,
        "teachers": teachers,
        "predictions": predictions,
        "runs": fast and manifest.task in MODELS,
        "vocabulary": _vocabulary(stages),
        "recipe": _fenced(recipe_yaml, "yaml"),
        "rivals": None if rivals is None else markdown_table(rivals_table(rivals)),
        "verdict": [] if rivals is None else verdict(rivals),
        "figure": None if rivals is None else f"![{in_words(rivals)}](figures/rivals.svg)\n\n{how_to_read(rivals)}",
        "languages": ", ".join(languages),
        "test_set": test_set,
        "licence": licence,
        "attribution": attribution,
        "usage": None,
        "no_answer": None if questions is None else questions.no_answer_threshold,
    }
    with resources.as_file(resources.files("edgemin_hf.model_cards")) as templates:
        if questions is not None:
            variables["usage"] = fill_part(templates / "question_answering.md", variables)
        if vectors is not None:
            variables["usage"] = fill_part(templates / "sentence_embedding.md", variables)
        return fill_template(templates / "template.md", data, variables)


def _measured(benchmark: Benchmark) -> dict[str, object]:
    """Return what the template is told of a benchmark."""
    return {
        "headline": headline(benchmark),
        "finished": finished_row(benchmark.rows).precision,
        "results": markdown_table(result_table(benchmark)),
        "conditions": conditions(benchmark),
        "baseline": any((row.model, row.precision) == ("teacher", "int8") for row in benchmark.rows),
        "processor": _processor(benchmark.environment),
    }


def markdown_table(table: Table) -> str:
    """Write a table in Markdown, words to the left and numbers to the right."""
    rule = ["---" if header in TEXT_COLUMNS else "---:" for header in table.headers]
    rows = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (table.headers, rule, *rows))


def _measured_by(rows: Sequence[BenchmarkRow]) -> str:
    metric = rows[0].metric
    if metric is None:
        raise ValueError("benchmark: rows without a metric; expected: those of a recipe's benchmark")
    return metric


def _vocabulary(stages: Sequence[StageRecord]) -> str:
    """Say what a vocabulary that was cut makes of texts; "" where none was."""
    cut = next((stage.vocabulary for stage in stages if stage.vocabulary is not None), None)
    if cut is None or cut.after == cut.before:
        return ""
    told = [f"of the {one.texts} {one.split:.1%} and {one.unknown:.2%}" for one in cut.coverage]
    return (
        f"Its vocabulary was cut to {cut.after:,} of {cut.before:,} pieces. Any other text is answered as well, from "
        "smaller pieces down to single characters: the share of pieces that became smaller, and the share that is "
        f"unknown, is {' and '.join(told)}."
    )


def _tags(stages: Sequence[StageRecord]) -> tuple[list[str], bool]:
    """Return what the stages add to the tags, each once, and whether what was quantised was calibrated only."""
    tags = [stage.tag for stage in stages]
    # After quantisation nothing saw an example: what was trained before it was only calibrated.
    untrained = _TRAINED_TAG in tags and not any(stage.examples for stage in stages[tags.index(_TRAINED_TAG) :])
    renamed = [_UNTRAINED_TAG if untrained and tag == _TRAINED_TAG else tag for tag in tags]
    return list(dict.fromkeys(tag for tag in renamed if tag is not None)), untrained


def _file_table(manifest: Manifest) -> Table:
    """List the files that the manifest lists, and what each needs."""
    rows = []
    for entry in manifest.entries:
        runtime = RUNTIMES.get(entry.runtime, entry.runtime)
        needs = f"{runtime} {entry.min_runtime} or newer" if entry.min_runtime else runtime
        rows.append([f"`{entry.file}`", entry.precision, f"{entry.bytes / 1e6:.1f}", needs])
    return Table(["file", "precision", "size (MB)", "runs in"], rows)


def _eval_results(row: BenchmarkRow, task: str, dataset: str, test_set: str) -> list[EvalResult] | None:
    """Give the measured quality of the student's finished row in the Hub's form, if it has one."""
    score = row.score
    if row.model != "student" or score is None:
        return None
    result = EvalResult(
        task_type=task,
        task_name=task.replace("-", " ").capitalize(),
        dataset_type=dataset,
        dataset_name=test_set,
        dataset_split="test",
        metric_type=score.metric,
        metric_name=_capitalized(metric_named(score.metric).title),
        metric_value=round(score.value, 4),
    )
    return [result]


def _processor(environment: Environment) -> str:
    return f"{environment.cpu}, {'with' if environment.vnni else 'without'} VNNI"


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fenced(text: str, language: str) -> str:
    """Put a text into a code block whose fence is longer than any that the text holds."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", text)), 0)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
