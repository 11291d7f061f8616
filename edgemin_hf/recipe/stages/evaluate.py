"""The stage `evaluate`: the task's metric on the test set, of every file that can run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from datasets import Dataset
from pydantic.dataclasses import dataclass
from safetensors.numpy import save_file
from transformers import PreTrainedTokenizerBase

from edgemin_hf.benchmark.measure import ModelFile, arrays_of, files_of, in_openvino, predict, predict_rows
from edgemin_hf.benchmark.rows import Row, deployed
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.recipe.analysis import ANALYSIS, Models, analyse, check_slices, measured_on
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimate
from edgemin_hf.recipe.fingerprint import content
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.schema import STRICT, Product, RecipeError
from edgemin_hf.recipe.stages.base import WritingStage
from edgemin_hf.recipe.vector_measures import notes_on, write_given_out, write_retrieval
from edgemin_hf.tasks.masked_lm import MaskedLM
from edgemin_hf.tasks.metrics import Answers
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.tasks.table_task import TableTask

CHOSEN = "chosen.json"
"""File of what was chosen for each model by its outputs on validation rows, by the names of the task's settings."""


@dataclass(config=STRICT)
class Evaluate(WritingStage):
    """Measure the task's metric on the test set; the only stage that opens it.

    Attributes:
        slices: Columns of the test table, of at most 50 values each, by whose values the metric is told too, or
            "length_bucket" for the quartiles of the texts' lengths in the student's tokens; not of rankings and masked
            tokens.
        robustness: Whether the metric is told of texts with typos in a tenth of their words, in lower case and in
            capitals too; where a text or a pair has one answer.

    Example:
        >>> from edgemin_hf.recipe.stages import Evaluate
        >>> Evaluate().leaves
        (<Product.PREDICTIONS: 'predictions'>,)
    """

    stage: Literal["evaluate"] = "evaluate"
    slices: list[str] = field(default_factory=list)
    robustness: bool = False
    needs: ClassVar[tuple[Product, ...]] = (Product.TASK, Product.GRAPHS)
    leaves: ClassVar[tuple[Product, ...]] = (Product.PREDICTIONS,)
    not_after: ClassVar[tuple[Product, ...]] = (Product.PREDICTIONS,)
    minutes: ClassVar[float] = 0.7

    def check(self, context: Context) -> None:
        """Check that what is exported can be measured, and what is asked can be told."""
        check_slices(context, self.slices, self.robustness)
        if isinstance(context.task, MaskedLM) and not context.task.keep_head:
            raise ValueError(
                "stage: evaluate with task.keep_head: false, whose graph predicts no token; allowed: without this stage"
            )

    def estimate(self, context: Context) -> Estimate:
        """Return what it will cost here: perturbed texts are run by two files of about six, three times."""
        return Estimate(self.minutes * (2 if self.robustness else 1))

    def inputs(self, context: Context) -> dict[str, object]:
        """Return the test set, and whether its rows run in OpenVINO too."""
        openvino = {"openvino": True} if wants_openvino(context) else {}
        task, root = context.task, context.root
        further = {name: content(task.named_path(root, named)) for name, named in task.further_tests.items()}
        submitted = {name: content(path) for name, path in _submitted(task, root).items()}
        more = {name: found for name, found in (("further_tests", further), ("submissions", submitted)) if found}
        files = {name: content(root / file) for name, file in task.more_test_files.items()}
        return {"test_file": content(task.path(root, "test")), **more, **files, **openvino}

    def write(self, context: Context, folder: Path, work: Path) -> Outcome:
        """Write predictions, what they are worth, and the inputs that they were made from."""
        task, tokenizers = context.task, {"student": context.student_tokenizer(self)}
        if context.has_teacher:
            tokenizers = {"teacher": context.teacher_tokenizer, **tokenizers}
        try:
            task.check_table(task.path(context.root, "test"))
            tests = {model: task.test(context.root, tokenizers[model], context.label_ids) for model in tokenizers}
        except ValueError as error:  # it may have changed since the plan was made
            raise RecipeError(f"task.{task.field('test')}: {error}") from None
        read = {model: set(tokenizer.model_input_names) for model, tokenizer in tokenizers.items()}
        inputs = {m: test.select_columns([n for n in test.column_names if n in read[m]]) for m, test in tests.items()}
        arrays = {model: arrays_of(dataset) for model, dataset in inputs.items()}
        validation = _validation(context, tokenizers)
        predictions: dict[str, Answers] = {}
        chosen: dict[str, dict[str, object]] = {}
        models = Models(measured_files(context), tokenizers)
        for row, file in models.files.items():
            runner = load_runner(row[1], file.path, context.threads, task.auto_class, spinning=False)
            name, told, own = "_".join(row), " / ".join(row), task
            if (rows := validation.get(row[0])) is not None:
                held_out = arrays_of(rows.select_columns(inputs[row[0]].column_names))
                own = task.calibrated(predict_rows(task, runner, held_out, rows, f"Validation of {told}"), rows)
                chosen[name] = _changed(task, own)
            outputs = predict_rows(task, runner, arrays[row[0]], tests[row[0]], f"Predictions of {told}")
            predictions[name] = own.predictions(outputs, tests[row[0]])
            if alternatives := own.alternatives(outputs, tests[row[0]]):
                _write_lines(folder / "alternatives" / f"{name}.jsonl", alternatives)
            models.outputs[row], models.tasks[row], models.predictions[row] = outputs, own, predictions[name]
        truth = task.references(tests["student"])
        names = sorted(context.label_ids, key=lambda name: context.label_ids[name])
        results = {name: task.measure(truth, predicted, names) for name, predicted in predictions.items()}
        for name in task.further_tests:
            table = task.read(task.named_path(context.root, task.further_tests[name]))
            for row, found in measured_on(context, table, models, list(models.files), name, names).items():
                results["_".join(row)].setdefault("further_tests", {})[name] = found
        _write_submissions(context, folder / "submissions", tokenizers["student"], read["student"], names)
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        if chosen:
            (folder / CHOSEN).write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")
        analysis = analyse(context, models, truth, self.slices, self.robustness)
        (folder / ANALYSIS).write_text(json.dumps(analysis.to_dict(), indent=2) + "\n", encoding="utf-8")
        _save(predictions, folder)
        for model, dataset in inputs.items():
            dataset.save_to_disk(folder / "inputs" / model)
        notes = tuple(f"{name.replace('_', ' / ')} {result['value']:.4f}" for name, result in results.items())
        if isinstance(task, SentenceEmbedding):
            write_given_out(context, task, models.outputs, truth, folder)
            notes += notes_on(write_retrieval(context, task, models.files, tokenizers, folder))
        return Outcome(notes=notes)


def _validation(context: Context, tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> dict[str, Dataset]:
    """Return the validation rows of each model, where something is chosen by them; nothing where not."""
    _, table = context.task.tables(context.root, context.recipe.seed)
    if not context.task.chooses(table):
        return {}
    return {model: context.task.tokenized(table, tokenizers[model], context.label_ids) for model in tokenizers}


def _submitted(task: TableTask, root: Path) -> dict[str, Path]:
    """Return the tables whose predictions are wanted, of those that are there, by the names of the files for them."""
    found: dict[str, Path] = {}
    for name, named in task.submissions.items():
        with suppress(ValueError):
            found[name] = task.named_path(root, named, with_labels=False)
    return found


def _write_submissions(
    context: Context, folder: Path, tokenizer: PreTrainedTokenizerBase, read: set[str], names: Sequence[str]
) -> None:
    """Write what the student's graph to deploy says of rows without labels, as "index" and "prediction"."""
    task, files = context.task, measured_files(context)
    row = deployed(list(files))
    for name, path in _submitted(task, context.root).items():
        rows = task.tokenized(task.read(path), tokenizer, context.label_ids, with_labels=False)
        runner = load_runner(row[1], files[row].path, context.threads, task.auto_class, spinning=False)
        arrays = arrays_of(rows.select_columns([n for n in rows.column_names if n in read]))
        outputs = predict(runner, arrays, f"{name} of {' / '.join(row)}")
        told = task.submitted(task.predictions(outputs, rows), names)
        folder.mkdir(exist_ok=True)
        lines = ["index\tprediction", *(f"{index}\t{one}" for index, one in enumerate(told))]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def calibrated_task(context: Context, row: Row) -> TableTask:
    """Return the task with what was chosen for the model of a row."""
    file = context.folder_with(Product.PREDICTIONS) / CHOSEN
    chosen = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return replace(context.task, **chosen.get("_".join(row), {}))


def _changed(task: TableTask, other: TableTask) -> dict[str, object]:
    """Return the settings of a task that another one has otherwise, as that has them."""
    ours, theirs = asdict(task), asdict(other)
    return {name: value for name, value in theirs.items() if value != ours[name]}


def _save(predictions: Mapping[str, Answers], folder: Path) -> None:
    """Write arrays into one file of them; answers that are none as JSON, a line an example, by the models' names."""
    arrays = {name: answers for name, answers in predictions.items() if isinstance(answers, np.ndarray)}
    if len(arrays) == len(predictions):
        save_file(arrays, folder / "predictions.safetensors")
        return
    lines = (dict(zip(predictions, answers, strict=True)) for answers in zip(*predictions.values(), strict=True))
    _write_lines(folder / "predictions.jsonl", lines)


def _write_lines(file: Path, lines: Iterable[object]) -> None:
    """Write JSON, a value a line."""
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def measured_files(context: Context) -> Mapping[Row, ModelFile]:
    """Return the file of each row that is measured: the teacher's, if it is a model, and the student's."""
    export = context.folder_with(Product.GRAPHS)
    try:
        files = files_of("student", export / "student")
        if context.has_teacher:
            files = files_of("teacher", export / "teacher", Path(context.teacher_folder)) | files
    except ValueError as error:  # somebody changed them since, or another version exported them
        raise RecipeError(f"{error}; `--overwrite` exports them again") from None
    return files | in_openvino(files) if wants_openvino(context) else files


def wants_openvino(context: Context) -> bool:
    """Return whether the graphs are measured in OpenVINO too, as the stage `benchmark` says."""
    return any(stage.stage == "benchmark" and stage.settings()["openvino"] for stage in context.recipe.stages)
