"""Running a recipe: stage after stage, what is done is not done again, what was killed goes on."""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import PartialState
from filelock import FileLock, Timeout

from edgemin_hf import __version__
from edgemin_hf.export.fidelity import FidelityError
from edgemin_hf.hub.checkpoints import CheckpointError
from edgemin_hf.hub.push import PushError
from edgemin_hf.recipe.context import GROUP_TIMEOUT, Context
from edgemin_hf.recipe.errors import StageError, prefix
from edgemin_hf.recipe.log_file import LOG, forget
from edgemin_hf.recipe.models import fetch_models
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.plan import Step, describe_plan, steps_of, with_states
from edgemin_hf.recipe.schema import Product, RecipeError
from edgemin_hf.recipe.stages.known import ParsedRecipe
from edgemin_hf.report.records import StageRecord
from edgemin_hf.tasks.run_rows import write_rows
from edgemin_hf.utils.atomic_files import write_atomic
from edgemin_hf.utils.cpus import warn_if_busy
from edgemin_hf.utils.records import Json

logger = logging.getLogger(__name__)

_TOLD = ("stage", "name", "seconds", "examples", "metric", "before", "after", "notes")
"""What of a stage's record is told to machines when it is done."""
ERROR_LOG = "error.log"
"""File in the folder of a run with the traceback of what ended it."""


def run_recipe(
    recipe: ParsedRecipe, settings: Json, root: Path, overwrite: bool = False, resume_anyway: bool = False
) -> list[Step]:
    """Run the stages of a recipe that are not done yet, and log what each made.

    Args:
        recipe: The recipe.
        settings: The plain settings that it was made from; they go into the artefact.
        root: The folder that its paths are relative to.
        overwrite: Whether what stands in the folders of its stages may be made anew.
        resume_anyway: As of `make_plan`.

    Returns:
        The plan that was followed.

    Raises:
        RecipeError: As `make_plan`, or if another process is running in the same folder.
        StageError: If a stage fails; the folder goes on when the cause is mended.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> from edgemin_hf.recipe import load_recipe, run_recipe
        >>> rules = Tokenizer(models.WordLevel({"[PAD]": 0, "card": 1, "phone": 2}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> settings = {"name": "demo", "teacher": {"model": "teacher"}, "student": {"num_hidden_layers": 1}}
        >>> settings |= {"raw_text": {"files": ["text.csv"], "pack": False}, "threads": 1}
        >>> settings["stages"] = [{"stage": "distill", "method": "minilmv2", "relation_heads": 4, "max_steps": 2}]
        >>> with TemporaryDirectory() as folder:
        ...     BertModel(BertConfig(vocab_size=3, **shape)).save_pretrained(f"{folder}/teacher")
        ...     _ = tokenizer.save_pretrained(f"{folder}/teacher")
        ...     _ = Path(folder, "text.csv").write_text(chr(10).join(["text", "card", "phone"]))
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps({**settings, "output_dir": f"{folder}/run"}))
        ...     _ = run_recipe(*load_recipe(Path(folder, "demo.yaml")), Path(folder))
        ...     BertModel.from_pretrained(f"{folder}/run/distill").config.num_hidden_layers
        1
    """
    # The first PartialState decides: without cpu=True, several processes on CPUs would not find each other.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=GROUP_TIMEOUT)
    context = Context(recipe, settings, root, Path(recipe.output_dir))
    planned = steps_of(context, recipe.stages)
    for step in with_states(context, planned, overwrite, resume_anyway):  # before the folder is made
        if step.state != "done":
            with prefix(f"{step.stage.name}."):
                step.stage.check_run(context)
    with _locked(context.output, state):
        steps = with_states(context, planned, overwrite, resume_anyway)  # another run may have just ended
        state.wait_for_everyone()
        if state.is_main_process:
            tell_plan(steps)
            warn_if_busy("the minutes are what it takes beside them")
            if recipe.task is not None:
                write_rows(recipe.task, root, recipe.seed, context.output)
        fetch_models(context)
        for step in steps:
            if step.state != "done":
                with _told(context, step, state):
                    _run_step(context, step, state)
        if state.is_main_process:
            _tell_summary(context, steps)
    return steps


def tell_plan(steps: list[Step]) -> None:
    """Log a plan."""
    stages = [
        {"name": step.stage.name, "state": step.state, "minutes": round(step.estimate.minutes, 3)}
        | {"examples": step.estimate.examples, "parameters": step.estimate.parameters, "folder": str(step.folder)}
        for step in steps
    ]
    notes = [note for step in steps for note in step.notes]
    event: dict[str, object] = {"event": "plan", "stages": stages, "notes": notes}
    for artefact in (step.artefact for step in steps if step.artefact is not None):
        event["artefact"] = asdict(artefact)
    logger.info(describe_plan(steps), extra={"event": event})


@contextmanager
def _told(context: Context, step: Step, state: PartialState) -> Iterator[None]:
    """Turn an error that nobody foresaw into one line, and keep its traceback in the folder of the run."""
    try:
        yield
    except (RecipeError, CheckpointError, FidelityError, PushError):
        raise
    except Exception as error:
        name = ERROR_LOG if state.is_main_process else f"error-{state.process_index}.log"
        log = context.output / name
        with suppress(OSError):  # a full disk ends stages too
            log.write_text(f"edgemin {__version__}, stage {step.stage.name}\n\n{traceback.format_exc()}", "utf-8")
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise StageError(
            f"{step.stage.name}: {what} (traceback: {log}); expected: the cause mended, then the same command goes on"
        ) from error


def _run_step(context: Context, step: Step, state: PartialState) -> None:
    file, stage, begun = context.record_file(step.stage), step.stage, step.begun()
    if state.is_main_process:
        # Before the folder is replaced: a finished record never stands beside a folder that it does not describe.
        write_atomic(file, json.dumps(begun.to_dict(), indent=2))
        if step.state != "to resume":
            forget(context.output / LOG, stage.name)
    state.wait_for_everyone()
    work = step.work_folder(context)
    start = time.perf_counter()
    outcome = Outcome()
    with context.line.of(stage.name, step.estimate.minutes, step.folder) if state.is_main_process else nullcontext():
        if state.is_main_process or stage.every_process:
            outcome = stage.run(context, step.folder, work)
        state.wait_for_everyone()
    if state.is_main_process:
        seconds = round(time.perf_counter() - start, 1)
        record = replace(
            begun, finished=True, tag=stage.hub_tag, seconds=seconds, version=__version__, **outcome.told()
        )
        write_atomic(file, json.dumps(record.to_dict(), indent=2))
        shutil.rmtree(work.parent, ignore_errors=True)
        told = {name: value for name, value in record.to_dict().items() if name in _TOLD}
        logger.info(describe_result(record), extra={"event": {"event": "done", **told, "folder": str(step.folder)}})
    # A trainer refers to itself in circles, so models and optimizers would stay until Python happens to look for such:
    # the memory of many stages in one process.
    gc.collect()


def describe_result(record: StageRecord) -> str:
    """Return one line on what a finished stage made."""
    parts = [f"{record.name}: done in {record.seconds:.0f} s"]
    if record.examples:
        parts.append(f"{record.examples:,} examples seen")
    if record.metric:
        parts.append(f"validation {record.metric} {record.before:.4f} -> {record.after:.4f}")
    return ", ".join([*parts, *record.notes])


def _tell_summary(context: Context, steps: list[Step]) -> None:
    last, folder = steps[-1].stage, steps[-1].folder
    if summary := last.summary(context):
        logger.info("\n%s", summary, extra={"event": {"event": "made", "summary": summary.splitlines()}})
    if Product.ARTEFACT not in last.leaves:  # whose summary tells it
        logger.info("\nAll stages done; the result of %s lies in %s", last.name, folder)


@contextmanager
def _locked(output: Path, state: PartialState) -> Iterator[None]:
    """Keep a second run out of the folder."""
    if not state.is_main_process:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RecipeError(f"output_dir: {output}, where another run is at work; allowed: another folder") from None
    try:
        for log in output.glob("error*.log"):  # of a run before this one
            log.unlink()
        yield
    finally:
        lock.release()
