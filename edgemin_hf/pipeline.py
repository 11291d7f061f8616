"""Running a recipe: stage after stage, what is done is not done again, what was killed goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from edgemin_hf import __version__
from edgemin_hf.benchmark.report import summary_table
from edgemin_hf.estimate import Estimate, estimate_stages
from edgemin_hf.export.folder import write_whole
from edgemin_hf.recipe import (
    Recipe,
    RecipeError,
    Stage,
    TrainingStage,
    check_recipe,
    settings_of,
    student_shape,
)
from edgemin_hf.run import Run
from edgemin_hf.stages import run_stage
from edgemin_hf.student import student_config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: Its settings.
        folder: Where its result stands or will stand.
        fingerprint: Hash of everything that the result depends on.
        state: "done", "to do", or "to resume" from a checkpoint.
        estimate: Examples to see and minutes to take.
    """

    stage: Stage
    folder: Path
    fingerprint: str
    state: str
    estimate: Estimate


def make_plan(recipe: Recipe, root: Path, overwrite: bool = False) -> list[Step]:
    """Checks a recipe whole and says what running it would do; loads no weights and writes nothing.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        overwrite: Whether stages that were made with other settings may be made anew.

    Returns:
        A step a stage.

    Raises:
        RecipeError: If the recipe can't be run, or its folder holds a run of another one.
    """
    teacher = check_recipe(recipe, root)
    student = student_config(teacher, **student_shape(recipe.student))
    output = Path(recipe.output_dir)
    run = Run(recipe, {}, root, output)
    estimates = estimate_stages(recipe, root, teacher, student, run.bf16)
    steps, fingerprint = [], _fingerprint_inputs(recipe, root)
    for stage, estimate in zip(recipe.stages, estimates, strict=True):
        fingerprint = _hash([fingerprint, settings_of(stage)])
        folder = output / stage.folder
        record = run.record(stage)
        if record is None or not folder.is_dir():
            resumable = any(_work_folder(output, stage, fingerprint).glob("checkpoint-*"))
            state = "to resume" if resumable else "to do"
        elif record["fingerprint"] == fingerprint:
            state = "done"
        elif overwrite:
            state = "to do"
        else:
            raise RecipeError(
                f"output_dir: {output}, whose {stage.folder} was made with {_difference(record, stage)}; "
                "allowed: a folder of its own, or --overwrite to make it anew"
            )
        steps.append(Step(stage, folder, fingerprint, state, estimate))
    return steps


def run_recipe(recipe: Recipe, settings: Mapping[str, Any], root: Path, overwrite: bool = False) -> list[Step]:
    """Runs the stages of a recipe that are not done yet, and prints what each made.

    Args:
        recipe: The recipe.
        settings: The plain settings that it was made from; they go into the artefact.
        root: The folder that its paths are relative to.
        overwrite: Whether stages that were made with other settings may be made anew.

    Returns:
        The plan that was followed.

    Raises:
        RecipeError: As `make_plan`, or if another process is running in the same folder.
    """
    steps = make_plan(recipe, root, overwrite)
    state = PartialState()
    run = Run(recipe, settings, root, Path(recipe.output_dir))
    with _locked(run.output, state):
        if state.is_main_process:
            print(describe_plan(steps), flush=True)
        for step in steps:
            state.wait_for_everyone()
            if step.state != "done":
                _run_step(run, step, state)
        if state.is_main_process:
            _print_summary(run, steps)
    return steps


def _run_step(run: Run, step: Step, state: PartialState) -> None:
    if state.is_main_process:
        print(f"\n== {step.stage.stage} -> {step.folder}", flush=True)
        # Away before the folder is replaced: a record never stands beside a folder that it does not describe.
        run.record_file(step.stage).unlink(missing_ok=True)
    work = _work_folder(run.output, step.stage, step.fingerprint)
    start = time.perf_counter()
    if state.is_main_process or isinstance(step.stage, TrainingStage):
        result = run_stage(run, step.stage, step.folder, work)
    state.wait_for_everyone()
    if state.is_main_process:
        seconds = round(time.perf_counter() - start, 1)
        record: dict[str, Any] = {"stage": step.stage.stage, "seconds": seconds, **result}
        record |= {"fingerprint": step.fingerprint, "settings": settings_of(step.stage), "version": __version__}
        write_whole(run.record_file(step.stage), json.dumps(record, indent=2))
        shutil.rmtree(work.parent, ignore_errors=True)
        print(describe_result(record), flush=True)


def describe_plan(steps: list[Step]) -> str:
    """Returns the plan as a table: stages, folders, state, examples and an estimate of the time."""
    lines = [f"{'stage':<14}{'state':<11}{'examples':>10}{'minutes':>9}  result"]
    for step in steps:
        examples = f"{step.estimate.examples:,}" if step.estimate.examples else ""
        minutes = f"{step.estimate.minutes:.1f}" if step.state != "done" else ""
        lines.append(f"{step.stage.stage:<14}{step.state:<11}{examples:>10}{minutes:>9}  {step.folder}")
    total = sum(step.estimate.minutes for step in steps if step.state != "done")
    return "\n".join([*lines, f"About {total:.0f} minutes to go on this machine."])


def describe_result(record: Mapping[str, Any]) -> str:
    """Returns one line on what a stage made."""
    parts = [f"{record['stage']}: done in {record['seconds']:.0f} s"]
    if record.get("examples"):
        parts.append(f"{record['examples']:,} examples seen")
    if record.get("metric"):
        parts.append(f"validation {record['metric']} {record['before']:.4f} -> {record['after']:.4f}")
    return ", ".join([*parts, *record.get("notes", [])])


def _print_summary(run: Run, steps: list[Step]) -> None:
    benchmark = run.output / "benchmark" / "benchmark.json"
    if steps[-1].stage.stage in ("benchmark", "report"):
        print(f"\n{summary_table(json.loads(benchmark.read_text(encoding='utf-8')))}")
    print(f"\nAll stages done; {steps[-1].stage.stage} lies in {steps[-1].folder}", flush=True)


def _work_folder(output: Path, stage: Stage, fingerprint: str) -> Path:
    # By fingerprint: checkpoints of other settings are never taken up.
    return output / "work" / stage.stage / fingerprint[:16]


def _difference(record: Mapping[str, Any], stage: Stage) -> str:
    now, then = json.loads(json.dumps(settings_of(stage))), record["settings"]
    for name in now:
        if now[name] != then.get(name):
            return f"{stage.stage}.{name}: {then.get(name)} instead of {now[name]}"
    return "another version of what comes before it"


def _fingerprint_inputs(recipe: Recipe, root: Path) -> str:
    files = [recipe.task.train_file, recipe.task.test_file, *(recipe.raw_text.files if recipe.raw_text else ())]
    contents = [hashlib.sha256((root / file).read_bytes()).hexdigest() for file in files]
    raw_text = asdict(recipe.raw_text) if recipe.raw_text else None
    parts = [asdict(recipe.teacher), asdict(recipe.student), asdict(recipe.task), raw_text]
    return _hash([contents, parts, recipe.seed, recipe.precision, recipe.threads])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(output: Path, state: PartialState) -> Iterator[None]:
    """Keeps a second run out of the folder."""
    if not state.is_main_process:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    with (output / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecipeError(f"output_dir: {output}, where another run is at work; allowed: another folder") from None
        yield
