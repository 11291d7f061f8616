"""What running a recipe would do: its stages, what is done, what must be made, and how long that takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.recipe.check import check_recipe
from edgemin_hf.recipe.context import Run, raw_text_source
from edgemin_hf.recipe.estimate import Estimate, estimate_stages
from edgemin_hf.recipe.schema import TRAINS_STUDENT, Recipe, RecipeError, Student, model_name, settings_of
from edgemin_hf.recipe.stages.settings import (
    Assistant,
    Augment,
    Distill,
    DistillOnTask,
    Evaluate,
    PruneVocabulary,
    Stage,
)


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: Its settings.
        inputs: What else its result depends on and no stage before it did, by name.
        folder: Where its result stands or will stand.
        fingerprint: Hash of everything that the result depends on.
        state: "done", "to do", or "to resume" from a checkpoint.
        estimate: Examples to see and minutes to take.
    """

    stage: Stage
    inputs: Mapping[str, Any]
    folder: Path
    fingerprint: str
    state: str
    estimate: Estimate

    def work_folder(self, run: Run) -> Path:
        """Return where checkpoints are kept: by fingerprint, so that those of other settings are never taken up."""
        return run.output / "work" / self.stage.stage / self.fingerprint[:16]

    def record(self) -> dict[str, Any]:
        """Return what identifies this step in its record."""
        return {"fingerprint": self.fingerprint, "settings": settings_of(self.stage), "inputs": dict(self.inputs)}


def make_plan(recipe: Recipe, root: Path, overwrite: bool = False) -> list[Step]:
    """Check a recipe as a whole and say what running it would do; loads no weights and write nothing.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        overwrite: Whether what stands in the folders of its stages may be made anew.

    Returns:
        A step a stage.

    Raises:
        RecipeError: If the recipe can't be run, or its folder holds something else.
    """
    output = Path(recipe.output_dir)
    if output.exists() and not output.is_dir():
        raise RecipeError(f"output_dir: {output}, which is a file; allowed: a folder, or a name for one")
    teacher = check_recipe(recipe, root)
    run = Run(recipe, {}, root, output)
    estimates = estimate_stages(recipe, root, teacher, run.bf16, run.processes)
    steps: list[Step] = []
    for stage, estimate in zip(recipe.stages, estimates, strict=True):
        inputs = _inputs(run, stage, first=not steps)
        before = steps[-1].fingerprint if steps else ""
        fingerprint = _hash([before, settings_of(stage), inputs])
        step = Step(stage, inputs, output / stage.folder, fingerprint, "to do", estimate)
        steps.append(Step(**{**vars(step), "state": _state(run, step, overwrite)}))
    return steps


def _state(run: Run, step: Step, overwrite: bool) -> str:
    record = run.record(step.stage)
    if step.folder.is_dir() and any(step.folder.iterdir()) and not overwrite:
        if record is None:
            raise RecipeError(
                f"output_dir: {run.output}, whose {step.stage.folder} no run of a recipe made; "
                "allowed: a folder of its own, or --overwrite to replace it"
            )
        if record["fingerprint"] != step.fingerprint:
            raise RecipeError(
                f"output_dir: {run.output}, whose {step.stage.folder} was made with {_difference(record, step)}; "
                "allowed: a folder of its own, or --overwrite to make it anew"
            )
    same = record is not None and record["fingerprint"] == step.fingerprint
    if same and record["finished"] and step.folder.is_dir():  # type: ignore[index]
        return "done"
    return "to resume" if any(step.work_folder(run).glob("checkpoint-*")) else "to do"


def describe_plan(steps: list[Step]) -> str:
    """Return the plan as a table: stages, state, and estimate of size, work and time.

    "model" is the shape that a stage trains (layers x width / heads / neurons) and its parameters, task heads aside;
    "PFLOP" are 10^15 floating-point operations, the teacher's among them.
    """
    lines = [
        f"{'stage':<16}{'state':<11}{'model':<20}{'params (M)':>11}{'examples':>14}{'PFLOP':>10}{'time':>11}  result"
    ]
    for step in steps:
        guess = step.estimate
        shape, parameters, examples, work = "", "", "", ""
        if guess.shape is not None:
            depth, width, heads, neurons = guess.shape
            shape, parameters = f"{depth}x{width}/{heads}/{neurons}", f"{guess.parameters / 1e6:.1f}"
            examples, work = f"{guess.examples:,}", _three_digits(guess.flops / 1e15)
        time = _duration(guess.minutes) if step.state != "done" else ""
        lines.append(
            f"{step.stage.stage:<16}{step.state:<11}{shape:<20}{parameters:>11}{examples:>14}{work:>10}{time:>11}"
            f"  {step.folder}"
        )
    total = sum(step.estimate.minutes for step in steps if step.state != "done")
    return "\n".join([*lines, f"About {_duration(total)} to go on this machine."])


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:.1f} min"
    hours = minutes / 60
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"


def _inputs(run: Run, stage: Stage, first: bool) -> dict[str, Any]:
    """Return what the result of a stage depends on beside its settings, at the first stage that it matters to."""
    recipe, inputs = run.recipe, dict[str, Any]()
    if first:
        inputs |= {"teacher": _model(run, recipe.teacher.model)}
        inputs |= {"seed": recipe.seed, "precision": "bf16" if run.bf16 else "fp32"}
        inputs |= {"threads": run.threads, "processes": run.processes}
    if first and recipe.task is not None:
        task = {name: value for name, value in asdict(recipe.task).items() if name != "test_file"}
        inputs |= {"task": task, "train_file": _content(run.root / recipe.task.train_file)}
        if recipe.task.validation_file is not None:
            inputs["validation_file"] = _content(run.root / recipe.task.validation_file)
    students = [other.stage for other in recipe.stages if other.stage in TRAINS_STUDENT]
    if students and stage.stage == students[0]:
        inputs["student"] = _student(run, recipe.student)
    if isinstance(stage, Assistant) and recipe.assistant is not None:
        inputs["assistant"] = _student(run, recipe.assistant)
    if isinstance(stage, Distill) and not isinstance(stage, DistillOnTask) and recipe.raw_text is not None:
        raw = recipe.raw_text
        contents: Any = [_content(run.root / file) for file in raw.files]
        if raw.pack:
            contents = raw_text_source(raw, run.root).fingerprint()
        inputs["raw_text"] = {**asdict(raw), "contents": contents}
    if isinstance(stage, Augment):
        inputs["words"] = _model(run, stage.model or recipe.teacher.model)
        inputs["vectors"] = None if stage.vectors is None else _content(run.root / stage.vectors)
    if isinstance(stage, PruneVocabulary):
        inputs["files"] = TextFiles([run.root / file for file in stage.files], stage.text_column).fingerprint()
    if isinstance(stage, Evaluate):
        inputs["test_file"] = [run.task.test_file, _content(run.root / run.task.test_file)]
        if recipe.openvino:
            inputs["openvino"] = True
    return inputs


def _model(run: Run, model: str) -> list[Any]:
    """Return what tells a model from another of its name: of a folder, its files."""
    folder = Path(model_name(model, run.root))
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]) if folder.is_dir() else []
    return [model, *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)]


def _student(run: Run, student: Student) -> dict[str, Any]:
    checkpoint = {} if student.checkpoint is None else {"checkpoint": _model(run, student.checkpoint)}
    return {**asdict(student), **checkpoint}


def _difference(record: Mapping[str, Any], step: Step) -> str:
    """Name the first setting or input in which a record differs from a step."""
    now: dict[str, Any] = json.loads(json.dumps(step.record()))
    for part, prefix in (("settings", f"{step.stage.stage}."), ("inputs", "")):
        for name, value in now[part].items():
            if record[part].get(name) != value:
                return f"{prefix}{name}: {record[part].get(name)} instead of {value}"
    return "another version of what comes before it"


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
