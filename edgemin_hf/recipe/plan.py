"""What running a recipe would do: its stages, what is done, what must be made, and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemin_hf.recipe.changes import changes
from edgemin_hf.recipe.check import check_recipe
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.errors import RecipeError, prefix
from edgemin_hf.recipe.estimate import ArtefactEstimate, Estimate
from edgemin_hf.recipe.fingerprint import hashed, recipe_inputs
from edgemin_hf.recipe.progress import duration
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.recipe.stages.known import ParsedRecipe
from edgemin_hf.report.records import StageRecord
from edgemin_hf.utils.atomic_files import check_writable_folder

_OTHER_BEFORE = "another version of what comes before it"


@dataclass(frozen=True)
class Step:
    """One stage of a plan.

    Attributes:
        stage: Its settings.
        inputs: What else its result depends on and no stage before it did, by name.
        folder: Where its result stands or will stand.
        fingerprint: Hash of everything that the result depends on.
        state: "done", "to do", "to replace" where something else stands in its folder, or "to resume" from a
            checkpoint.
        estimate: Examples to see and minutes to take.
        machine: What of this machine only changes how results are rounded.
        notes: What is worth knowing of it and, of the first stage, of the data.
        artefact: Of a stage that exports, what the artefact will take.
        cut_rows: Of the first stage, how many rows of each table are cut by the task's `max_length`, if any.
    """

    stage: Stage
    inputs: Mapping[str, object]
    folder: Path
    fingerprint: str
    state: str
    estimate: Estimate
    machine: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    artefact: ArtefactEstimate | None = None
    cut_rows: Mapping[str, int] | None = None

    def work_folder(self, context: Context) -> Path:
        """Return where checkpoints are kept, so that those of other settings, or other batches, are never taken up."""
        return context.output / "work" / self.stage.name / f"{self.fingerprint[:16]}-{context.processes}"

    def begun(self) -> StageRecord:
        """Return its record before it is run: what it is made of."""
        stage = self.stage
        return StageRecord(
            stage=stage.stage,
            finished=False,
            name=stage.name,
            fingerprint=self.fingerprint,
            settings=stage.settings(),
            inputs=dict(self.inputs),
            machine=dict(self.machine),
            cut_rows=None if self.cut_rows is None else dict(self.cut_rows),
        )


def make_plan(recipe: ParsedRecipe, root: Path, overwrite: bool = False, resume_anyway: bool = False) -> list[Step]:
    """Check a recipe as a whole and say what running it would do; load no weights and write nothing.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        overwrite: Whether what stands in the folders of its stages may be made anew.
        resume_anyway: Whether what was made with other threads, processes or precision, which round otherwise, counts.

    Returns:
        A step a stage.

    Raises:
        RecipeError: If the recipe can't be run, or its folder holds something else.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
        >>> from edgemin_hf.recipe import load_recipe, make_plan
        >>> rules = Tokenizer(models.WordLevel({"[SEP]": 0, "[PAD]": 1, "card": 2}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, sep_token="[SEP]", pad_token="[PAD]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> settings = {"name": "demo", "teacher": {"model": "teacher"}, "raw_text": {"files": ["text.txt"]}}
        >>> settings["stages"] = [{"stage": "distill", "method": "minilmv2", "relation_heads": 4, "max_steps": 2}]
        >>> with TemporaryDirectory() as folder:
        ...     BertModel(BertConfig(vocab_size=3, **shape)).save_pretrained(f"{folder}/teacher")
        ...     _ = tokenizer.save_pretrained(f"{folder}/teacher")
        ...     _ = Path(folder, "text.txt").write_text("card")
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps({**settings, "output_dir": f"{folder}/run"}))
        ...     recipe, _ = load_recipe(Path(folder, "demo.yaml"))
        ...     [(step.stage.name, step.state) for step in make_plan(recipe, Path(folder))]
        [('distill', 'to do')]
    """
    context = Context(recipe, {}, root, Path(recipe.output_dir))
    return with_states(context, steps_of(context, recipe.stages), overwrite, resume_anyway)


def steps_of(context: Context, stages: Sequence[Stage]) -> list[Step]:
    """Check a recipe at work, and return its steps, as if none had begun."""
    with prefix("output_dir: "):
        for folder in ("", "stages", "work", "cache"):
            check_writable_folder(context.output / folder)
    notes = check_recipe(context, stages)
    steps: list[Step] = []
    for stage in stages:
        inputs = {**recipe_inputs(context, stage), **stage.inputs(context)}
        before = steps[-1].fingerprint if steps else ""
        fingerprint = hashed([before, stage.settings(), inputs])
        guess, told = stage.estimate(context), (*([] if steps else notes), *stage.notes(context))
        cut = None if steps or context.recipe.task is None else context.cut_rows or None
        place, machine = context.folder(stage), context.machine
        artefact = stage.foretold(context)
        steps.append(Step(stage, inputs, place, fingerprint, "to do", guess, machine, told, artefact, cut))
    return steps


def with_states(context: Context, steps: Sequence[Step], overwrite: bool, resume_anyway: bool) -> list[Step]:
    """Return steps with what the folder of the run says of each, as `make_plan` does."""
    return [_with_state(context, step, overwrite, resume_anyway) for step in steps]


def _with_state(context: Context, step: Step, overwrite: bool, resume_anyway: bool) -> Step:
    record = context.record(step.stage)
    stands = step.folder.is_dir() and any(step.folder.iterdir())
    if record is None or record.fingerprint != step.fingerprint:
        return _replacing(context, step, record, overwrite) if stands else step
    done = record.finished and step.folder.is_dir()
    work = step.work_folder(context)
    left = any(work.rglob("checkpoint-*")) or any(work.glob("*.json"))  # which searches leave
    begun = step.stage.resumes and left
    if not done and not begun:  # it was killed at its beginning, maybe with what it replaces still there
        return replace(step, state="to replace") if stands else step
    here = replace(step, state="done" if done else "to resume")
    if not (rounding := _rounding(record, step)):
        return here
    if resume_anyway:
        return replace(here, notes=(*step.notes, f"{step.stage.name}: made with {rounding}, which is taken as it is"))
    if overwrite:
        return replace(step, state="to replace") if stands else step
    raise RecipeError(
        f"output_dir: {context.output}, whose {step.stage.folder} was made with {rounding}, which only rounds "
        "otherwise; allowed: --resume-anyway to go on with it, or --overwrite to make it anew"
    )


def _replacing(context: Context, step: Step, record: StageRecord | None, overwrite: bool) -> Step:
    """Return the step of a stage in whose folder something else stands, if that may be replaced."""
    whose, changed = f"output_dir: {context.output}, whose {step.stage.folder}", ""
    if not overwrite and record is None:
        allowed = "a folder of its own, or --overwrite to replace it"
        raise RecipeError(f"{whose} no run of a recipe made; allowed: {allowed}")
    if record is not None:
        changed = _changed(record, step)
    if not overwrite:
        allowed = "a folder of its own, or --overwrite to make it anew"
        raise RecipeError(f"{whose} was made with {changed or _OTHER_BEFORE}; allowed: {allowed}")
    notes = (*step.notes, f"to replace: {step.stage.name} ({changed})") if changed else step.notes
    return replace(step, state="to replace", notes=notes)


def _changed(record: StageRecord, step: Step) -> str:
    """Name the settings and inputs in which a step differs from a record; "" where only what comes before it does."""
    settings = changes(record.settings or {}, step.stage.settings(), f"{step.stage.name}.")
    return ", ".join([*settings, *changes(record.inputs or {}, step.inputs)])


def _rounding(record: StageRecord, step: Step) -> str:
    """Name what of the machine that a record tells of is not so here."""
    return ", ".join(changes(record.machine or {}, step.machine))


def describe_plan(steps: list[Step]) -> str:
    """Return the plan as a table: stages, state, and estimate of size, work and time; then what is known of the data.

    "model" is the shape that a stage trains (layers x width / heads / neurons) and its parameters, task heads aside;
    "PFLOP" are 10^15 floating-point operations, the teacher's among them.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.recipe import describe_plan
        >>> from edgemin_hf.recipe.estimate import Estimate
        >>> from edgemin_hf.recipe.plan import Step
        >>> from edgemin_hf.recipe.stages import Export
        >>> print(describe_plan([Step(Export(), {}, Path("runs/demo/export"), "", "to do", Estimate(0.5))]))
        stage           state      model ...
        export          to do ... 0.5 min  runs/demo/export
        About 0.5 min to go on this machine.
    """
    column = max(16, *(len(step.stage.name) + 1 for step in steps))
    figures = f"{'params (M)':>11}{'examples':>14}{'PFLOP':>10}{'time':>11}"
    lines = [f"{'stage':<{column}}{'state':<11}{'model':<20}{figures}  result"]
    for step in steps:
        guess = step.estimate
        shape, parameters, examples, work = "", "", "", ""
        if guess.shape is not None:
            depth, width, heads, neurons = guess.shape
            shape, parameters = f"{depth}x{width}/{heads}/{neurons}", f"{guess.parameters / 1e6:.1f}"
            examples, work = f"{guess.examples:,}", _three_digits(guess.flops / 1e15)
        time = duration(guess.minutes) if step.state != "done" else ""
        lines.append(
            f"{step.stage.name:<{column}}{step.state:<11}{shape:<20}{parameters:>11}{examples:>14}{work:>10}{time:>11}"
            f"  {step.folder}"
        )
    total = sum(step.estimate.minutes for step in steps if step.state != "done")
    notes = [note for step in steps for note in step.notes]
    notes += [str(step.artefact) for step in steps if step.artefact is not None and step.state != "done"]
    return "\n".join([*lines, *notes, f"About {duration(total)} to go on this machine."])


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
