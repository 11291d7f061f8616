"""Write the model card: metadata for the Hub, and a text with the measured numbers for its reader."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow
from edgemin_hf.export.manifest import Manifest
from edgemin_hf.report.analysis import ShownAnalysis
from edgemin_hf.report.card_facts import CardFacts
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
from edgemin_hf.report.tables import TEXT_COLUMNS, Table, capitalized
from edgemin_hf.report.templates import fill_part, fill_template
from edgemin_hf.report.vectors import vectors_table
from edgemin_hf.rivals.compare import Comparison
from edgemin_hf.runtime.artefact import unfused
from edgemin_hf.runtime.loading import MODELS
from edgemin_hf.tasks.known import TASKS
from edgemin_hf.tasks.metrics import metric_named
from edgemin_hf.utils.hardware import Environment

_TRAINED_TAG, _UNTRAINED_TAG = "quantization-aware-training", "post-training-quantization"
"""What a stage that quantises is tagged with, and what that becomes where nothing was trained from there on."""


def render_card(told: CardFacts) -> str:
    """Render the README of a finished model from `model_cards/template.md`.

    Args:
        told: What it is told.

    Returns:
        The card: YAML front matter and Markdown.

    Raises:
        ValueError: The template uses a variable that does not exist, or the manifest does not list the model to deploy.
    """
    measured = {**_measured(told.benchmark), **_beside_rivals(told.rivals), **_beside_teacher(told.analysis)}
    variables = {**measured, **_made(told), **_used(told)}
    with resources.as_file(resources.files("edgemin_hf.model_cards")) as templates:
        if told.questions is not None:
            variables["usage"] = fill_part(templates / "question_answering.md", variables)
        if told.vectors is not None:
            variables["usage"] = fill_part(templates / "sentence_embedding.md", variables)
        if told.mask is not None:
            variables |= {"mask": literal(told.mask)}
            variables["usage"] = fill_part(templates / "masked_lm.md", variables)
        if told.activation is not None:
            variables["usage"] = fill_part(templates / "reranking.md", variables)
        if _zero_shot(told):
            variables["zero_shot"] = fill_part(templates / "zero_shot.md", variables)
        return fill_template(templates / "template.md", _metadata(told), variables)


def _metadata(told: CardFacts) -> ModelCardData:
    """Return the front matter."""
    terms: dict[str, Any] = dict(told.licence_terms)
    rows, tag, (tags, _) = told.benchmark.rows, told.manifest.pipeline_tag, _tags(told.stages)
    finished = finished_row(rows)
    tags += ["zero-shot-classification"] * _zero_shot(told)
    tags += ["cross-encoder", "reranker"] * (told.activation is not None)
    of_vectors = () if told.vectors is None else ("sentence-transformers", "feature-extraction")
    return ModelCardData(
        base_model=told.base_model,
        datasets=[*told.datasets, *told.teacher_datasets] or None,
        eval_results=_eval_results(finished, tag, [*told.datasets, told.test_set][0], told.test_set),
        language=list(told.languages) or None,
        library_name="transformers" if told.vectors is None else "sentence-transformers",
        license=told.licence,
        metrics=sorted({row.metric for row in rows if row.metric is not None}),
        model_name=_title(told),
        pipeline_tag=tag,
        tags=["onnx", "optimum", unfused(finished.precision), "edge", *of_vectors, *tags],
        **terms,
    )


def _made(told: CardFacts) -> dict[str, object]:
    """Return what the template is told of how the model was made, and of what."""
    _, untrained = _tags(told.stages)
    return {
        "name": _title(told),
        "base_model": told.base_model,
        "untrained": untrained,
        "stages": markdown_table(stage_table(told.stages)),
        "teachers": told.teachers,
        "predictions": told.predictions,
        "vocabulary": _vocabulary(told.stages),
        "recipe": _fenced(told.recipe_yaml, "yaml"),
        "languages": ", ".join(told.languages),
        "test_set": told.test_set,
        "licence": told.licence,
        "attribution": told.attribution,
    }


def _used(told: CardFacts) -> dict[str, object]:
    """Return what the template is told of how the model is used: its files, its task, and the snippets."""
    rows, manifest, questions, vectors = told.benchmark.rows, told.manifest, told.questions, told.vectors
    finished, metric, task = finished_row(rows), metric_named(_measured_by(rows)), TASKS[manifest.task]
    deployed = manifest.entry(finished.runtime, unfused(finished.precision))  # which all of the snippets' packages load
    if deployed is None:
        raise ValueError(f"manifest: lists no {finished.precision} for {finished.runtime}; expected: what was measured")
    tokens = task.answer == "tags"
    arguments = told.pipeline_arguments if questions is None else reading_arguments(questions)
    cut = None if tokens or questions else told.max_length
    by_set, activation = told.by_set, told.activation
    return {
        **({"prompt": None, "space": None} if vectors is None else vectors.words()),
        "vectors": None if vectors is None else markdown_table(vectors_table(vectors.given_out)),
        **snippets(told.example, arguments, cut, asks=questions is not None),
        "head": task.auto_class.__name__.removeprefix("AutoModel"),
        "tokens": tokens,
        "masked": told.mask is not None,
        "task_name": "multi-label " * (told.threshold is not None) + manifest.pipeline_tag.replace("-", " "),
        "graph": Path(deployed.file).name,
        "files": markdown_table(_file_table(manifest)),
        "repo_id": literal(told.repo_id),
        "task": literal(manifest.pipeline_tag),
        "regression": metric.local is not None and metric.local.answers == ("score",),
        "threshold": told.threshold,
        "metric": capitalized(metric.title),
        "max_length": told.max_length,
        "plain": told.plain,
        "pooled": told.pooled,
        "fast": told.fast,
        "min_onnxruntime": f">={deployed.min_runtime}" if deployed.min_runtime else "",
        "runs": told.fast and manifest.task in MODELS,
        "usage": None,
        "zero_shot": None,
        "by_set": None if by_set is None else f"{by_set.caption}:\n\n{markdown_table(by_set.table)}",
        "activation": activation,
        "sigmoid": activation is not None and activation.endswith(".Sigmoid"),
        "no_answer": None if questions is None else questions.no_answer_threshold,
    }


def _beside_rivals(rivals: Comparison | None) -> dict[str, object]:
    """Return what the template is told of the rivals, where there are some."""
    return {
        "rivals": None if rivals is None else markdown_table(rivals_table(rivals)),
        "verdict": [] if rivals is None else verdict(rivals),
        "figure": None if rivals is None else f"![{in_words(rivals)}](figures/rivals.svg)\n\n{how_to_read(rivals)}",
    }


def _beside_teacher(found: ShownAnalysis | None) -> dict[str, object]:
    """Return what the template is told of the student beside its teacher, where that was looked at."""
    if found is None:
        return {"beside": [], "beside_heading": None, "classes": None, "more_classes": False}
    classes = None if found.classes is None else markdown_table(found.classes)
    told = {"beside": found.sentences, "beside_heading": found.heading}
    return {**told, "classes": classes, "more_classes": found.every_class is not None}


def _title(told: CardFacts) -> str:
    return " ".join(told.name.split())


def _zero_shot(told: CardFacts) -> bool:
    """Return whether it learned entailment between two texts, by which texts are sorted by any labels."""
    known = [label.lower() for label in told.labels]
    entails = all(any(label.startswith(name) for label in known) for name in ("entail", "contradict"))
    return entails and not isinstance(told.example, str)


def _measured(benchmark: Benchmark) -> dict[str, object]:
    """Return what the template is told of a benchmark."""
    return {
        "headline": headline(benchmark),
        "finished": unfused(finished_row(benchmark.rows).precision),
        "results": markdown_table(result_table(benchmark)),
        "conditions": conditions(benchmark),
        "baseline": any((row.model, row.precision) == ("teacher", "int8") for row in benchmark.rows),
        "processor": _processor(benchmark.environment),
        "exact_sums": _saturates(benchmark.environment),
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
        rows.append([f"`{entry.file}`", entry.variant, f"{entry.bytes / 1e6:.1f}", needs])
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
        metric_name=capitalized(metric_named(score.metric).title),
        metric_value=round(score.value, 4),
    )
    return [result]


def _processor(environment: Environment) -> str:
    return f"{environment.cpu}, {'with' if environment.vnni else 'without'} VNNI"


def _saturates(environment: Environment) -> bool:
    """Return whether kernels were told to add products of 8 bits exactly: those of x86 without VNNI."""
    return environment.cpu_capability.startswith("AVX") and not environment.vnni


def _fenced(text: str, language: str) -> str:
    """Put a text into a code block whose fence is longer than any that the text holds."""
    fence = "`" * max(3, *(1 + len(run) for run in re.findall("`+", text)), 0)
    return f"{fence}{language}\n{text.strip()}\n{fence}"
