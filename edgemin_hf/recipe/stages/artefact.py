"""What each stage of a recipe makes of the trained models: graphs, measurements, the artefact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, load_from_disk
from safetensors.numpy import load_file, save_file
from transformers import AutoConfig

from edgemin_hf.benchmark import rows as benchmark_records
from edgemin_hf.benchmark.measure import (
    ModelFile,
    Row,
    benchmark_rows,
    files_of,
    in_openvino,
    measure_latency,
    predict,
)
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.export.graph import bytes_by_component
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.export.onnx import export_baseline, export_onnx
from edgemin_hf.modeling.pruned_shape import reloads_plainly
from edgemin_hf.neural_compressor.guest import merge_inc_configs
from edgemin_hf.recipe.context import Run
from edgemin_hf.recipe.schema import TRAINS_STUDENT
from edgemin_hf.recipe.search.precisions import choose_precisions
from edgemin_hf.recipe.search.teacher_layer import SEARCH_CURVE, search_teacher_layer
from edgemin_hf.recipe.stages.augment import augment
from edgemin_hf.recipe.stages.prune_vocabulary import cut_student_vocabulary
from edgemin_hf.recipe.stages.settings import (
    Augment,
    Benchmark,
    Evaluate,
    Export,
    PruneVocabulary,
    Quantize,
    Report,
    Stage,
    TrainingStage,
)
from edgemin_hf.recipe.train import train_stage
from edgemin_hf.report import figures
from edgemin_hf.report.card import render_card
from edgemin_hf.report.page import render_report
from edgemin_hf.report.records import StageRecord
from edgemin_hf.tasks.metrics import METRICS
from edgemin_hf.utils.atomic_files import atomic_folder
from edgemin_hf.utils.hardware import environment


def run_stage(run: Run, stage: Stage, folder: Path, work: Path) -> dict[str, Any]:
    """Run one stage.

    Args:
        run: The recipe at work.
        stage: Which stage.
        folder: Where its result is to stand.
        work: Where its checkpoints are kept meanwhile.

    Returns:
        What is worth remembering: "examples", "metric", "before", "after", "notes", as far as they apply.
    """
    if isinstance(stage, Quantize) and stage.target_size_mb is not None:
        stage, chosen = choose_precisions(run, stage, work)
        result = train_stage(run, stage, folder, work)
        return {**result, **chosen, "notes": [*chosen["notes"], *result.get("notes", [])]}
    if isinstance(stage, TrainingStage):
        if getattr(stage, "teacher_layer", None) != "search":
            return train_stage(run, stage, folder, work)
        stage, found = search_teacher_layer(run, stage, work)
        return {**train_stage(run, stage, folder, work), **found}
    with atomic_folder(folder) as partial:
        if isinstance(stage, Augment):
            return augment(run, stage, partial, work)
        if isinstance(stage, PruneVocabulary):
            return cut_student_vocabulary(run, stage, partial)
        if isinstance(stage, Export):
            return _export(run, stage, partial)
        if isinstance(stage, Evaluate):
            return _evaluate(run, partial)
        if isinstance(stage, Benchmark):
            return _benchmark(run, stage, partial)
        return _report(run, stage, partial)


def _export(run: Run, stage: Export, folder: Path) -> dict[str, Any]:
    student = run.student(stage)
    texts = run.task.texts(run.root, stage.fidelity_texts, run.recipe.seed)
    made = export_onnx(student, run.tokenizer_of("student"), folder / "student", texts=texts)
    trained = [run.output / other.folder for other in run.recipe.stages if other.stage in TRAINS_STUDENT]
    merge_inc_configs(trained, folder / "student")
    export_baseline(run.teacher_folder, folder / "teacher")
    checks = {entry.precision: entry.fidelity for entry in made.manifest.entries if entry.fidelity is not None}
    notes = [
        f"{name.upper()} graph differs from PyTorch by {check.error:.1e}, of {check.limit:.1e} allowed"
        for name, check in checks.items()
        if name != "fp32"
    ]
    return {"notes": notes, "fidelity": {name: check.to_dict() for name, check in checks.items()}}


_MODELS = ("teacher", "student")


def _files(run: Run) -> dict[Row, ModelFile]:
    export = run.output / Export.folder
    teacher = files_of("teacher", export / "teacher", Path(run.teacher_folder))
    files = teacher | files_of("student", export / "student")
    return files | in_openvino(files) if run.recipe.openvino else files


def _evaluate(run: Run, folder: Path) -> dict[str, Any]:
    task = run.task
    tests = {model: task.test(run.root, run.tokenizer_of(model), run.label_ids) for model in _MODELS}
    labels = np.array(tests["teacher"]["labels"])
    inputs = {model: test.remove_columns("labels") for model, test in tests.items()}
    arrays, predictions = {model: _arrays(dataset) for model, dataset in inputs.items()}, {}
    for row, file in _files(run).items():
        runner = load_runner(row[1], file.path, run.threads)
        logits = predict(runner, arrays[row[0]], f"Predictions of {' / '.join(row)}")
        predictions["_".join(row)] = task.predictions(logits)
    results = {name: task.measure(labels, predicted) for name, predicted in predictions.items()}
    _write_json(folder / "results.json", results)
    save_file(predictions, folder / "predictions.safetensors")
    for model, dataset in inputs.items():
        dataset.save_to_disk(folder / "inputs" / model)
    return {"notes": [f"{name.replace('_', ' / ')} {result['value']:.4f}" for name, result in results.items()]}


def _arrays(inputs: Dataset) -> list[dict[str, np.ndarray]]:
    return [{name: np.array([value], dtype=np.int64) for name, value in row.items()} for row in inputs]


def _benchmark(run: Run, stage: Benchmark, folder: Path) -> dict[str, Any]:
    evaluated = run.output / Evaluate.folder
    tests = {model: load_from_disk(str(evaluated / "inputs" / model)) for model in _MODELS}
    count = len(tests["teacher"])
    chosen = np.linspace(0, count - 1, min(stage.sentences, count)).round().astype(int)
    inputs = {model: _arrays(test.select(chosen)) for model, test in tests.items()}
    files = _files(run)
    runners = {row: load_runner(row[1], file.path, run.threads) for row, file in files.items()}
    times = measure_latency(runners, {row: inputs[row[0]] for row in runners}, stage.rounds)
    results = _read_json(evaluated / "results.json")
    scores = {row: benchmark_records.Score.from_dict(results["_".join(row)]) for row in files}
    rows = benchmark_rows(files, times, run.threads, scores)
    _write_json(
        folder / "benchmark.json",
        benchmark_records.Benchmark(rows, environment(run.threads, *["openvino"] * stage.openvino)).to_dict(),
    )
    save_file({"_".join(row): values for row, values in times.items()}, folder / "latencies.safetensors")
    return {}


def _report(run: Run, stage: Report, folder: Path) -> dict[str, Any]:
    shutil.copytree(run.output / Export.folder / "student", folder, dirs_exist_ok=True)
    shutil.copy(run.output / Benchmark.folder / "benchmark.json", folder)
    benchmark = benchmark_records.Benchmark.from_dict(_read_json(folder / "benchmark.json"))
    records = (StageRecord.from_dict(record) for record in map(run.record, run.recipe.stages) if record)
    stages = [record for record in records if record.finished]
    recipe_yaml = yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True, width=100)
    (folder / "recipe.yaml").write_text(recipe_yaml, encoding="utf-8")
    _write_json(folder / "environment.json", benchmark.environment.to_dict())
    pictures = _draw(run, benchmark)
    (folder / "figures").mkdir()
    for name, (_, svg) in pictures.items():
        (folder / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    page = render_report(stage.title, benchmark, stages, dict(pictures.values()))
    (folder / "report.html").write_text(page, encoding="utf-8")
    card = render_card(
        name=stage.title,
        repo_id=stage.repo_id or f"your-name/{run.recipe.name}",
        manifest=read_manifest(folder),
        languages=[stage.language],
        licence=stage.license,
        base_model=run.recipe.teacher.model,
        datasets=stage.datasets,
        test_set=stage.test_set,
        attribution=stage.attribution,
        example=run.task.texts(run.root, 1, run.recipe.seed)[0],
        max_length=run.task.max_length,
        benchmark=benchmark,
        stages=stages,
        recipe_yaml=recipe_yaml,
        plain=reloads_plainly(AutoConfig.from_pretrained(folder)),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return {}


def _draw(run: Run, benchmark: benchmark_records.Benchmark) -> dict[str, tuple[str, str]]:
    """Return, by file name, the caption and the SVG of each figure."""
    times = load_file(run.output / Benchmark.folder / "latencies.safetensors")
    latencies = {row.label: times[f"{row.model}_{row.runtime}_{row.precision}"].tolist() for row in benchmark.rows}
    components = {
        f"{model} {precision}": bytes_by_component(file.path)
        for (model, runtime, precision), file in _files(run).items()
        if runtime == "onnxruntime" and (model, precision) != ("teacher", "int8")
    }
    pictures = {
        "size_metric": (
            f"Size on disk against {METRICS[run.task.metric].title}: up and to the left is better. "
            "The upright axis does not start at zero.",
            figures.size_against_metric(benchmark.rows),
        ),
        "latency": (
            "Latency of one text without padding: further left is better.",
            figures.latency_distributions(latencies),
        ),
        "bytes": (
            "Where the bytes are, by the part of the model that they belong to.",
            figures.bytes_by_component(components),
        ),
    }
    # By the records: the curve of a search that the recipe no longer asks for may still lie there.
    if any((run.record(stage) or {}).get("search") for stage in run.recipe.stages):
        caption = "The teacher's layers that stage 1 tried: the best on validation, after a small budget, was taken."
        pictures["teacher_layers"] = (caption, (run.output / SEARCH_CURVE).read_text(encoding="utf-8"))
    return pictures


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
