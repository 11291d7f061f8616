"""What running a recipe would do: its stages, what is done, what must be made, and how long that takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgemin_hf.recipe.check import check_recipe
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimate
from edgemin_hf.recipe.fingerprint import hashed, recipe_inputs
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.recipe.stages.known import ParsedRecipe
from edgemin_hf.report.records import StageRecord


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
        notes: What is worth knowing of the data, of the first stage.
    """

    stage: Stage
    inputs: Mapping[str, object]
    folder: Path
    fingerprint: str
    state: str
    estimate: Estimate
    notes: tuple[str, ...] = ()

    def work_folder(self, context: Context) -> Path:
        """Return where checkpoints are kept: by fingerprint, so that those of other settings are never taken up."""
        return context.output / "work" / self.stage.name / self.fingerprint[:16]

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
        )


def make_plan(recipe: ParsedRecipe, root: Path, overwrite: bool = False) -> list[Step]:
    """Check a recipe as a whole and say what running it would do; load no weights and write nothing.

    Args:
        recipe: The recipe.
        root: The folder that its paths are relative to.
        overwrite: Whether what stands in the folders of its stages may be made anew.

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
        >>> rules = Tokenizer(models.WordLevel({"[SEP]": 0, "card": 1}))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=rules, sep_token="[SEP]")
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> settings = {"name": "demo", "teacher": {"model": "teacher"}, "raw_text": {"files": ["text.txt"]}}
        >>> settings["stages"] = [{"stage": "distill", "method": "minilmv2", "relation_heads": 4, "max_steps": 2}]
        >>> with TemporaryDirectory() as folder:
        ...     BertModel(BertConfig(vocab_size=2, **shape)).save_pretrained(f"{folder}/teacher")
        ...     _ = tokenizer.save_pretrained(f"{folder}/teacher")
        ...     _ = Path(folder, "text.txt").write_text("card")
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps({**settings, "output_dir": f"{folder}/run"}))
        ...     recipe, _ = load_recipe(Path(folder, "demo.yaml"))
        ...     [(step.stage.name, step.state) for step in make_plan(recipe, Path(folder))]
        [('distill', 'to do')]
    """
    output = Path(recipe.output_dir)
    if output.exists() and not output.is_dir():
        raise RecipeError(f"output_dir: {output}, which is a file; allowed: a folder, or a name for one")
    context = Context(recipe, {}, root, output)
    notes = check_recipe(context, recipe.stages)
    steps: list[Step] = []
    for stage in recipe.stages:
        inputs = {**recipe_inputs(context, stage), **stage.inputs(context)}
        before = steps[-1].fingerprint if steps else ""
        fingerprint = hashed([before, stage.settings(), inputs])
        told = () if steps else tuple(notes)
        step = Step(stage, inputs, context.folder(stage), fingerprint, "to do", stage.estimate(context), told)
        steps.append(replace(step, state=_state(context, step, overwrite)))
    return steps


def _state(context: Context, step: Step, overwrite: bool) -> str:
    record = context.record(step.stage)
    if step.folder.is_dir() and any(step.folder.iterdir()) and not overwrite:
        if record is None:
            raise RecipeError(
                f"output_dir: {context.output}, whose {step.stage.folder} no run of a recipe made; "
                "allowed: a folder of its own, or --overwrite to replace it"
            )
        if record.fingerprint != step.fingerprint:
            raise RecipeError(
                f"output_dir: {context.output}, whose {step.stage.folder} was made with {_difference(record, step)}; "
                "allowed: a folder of its own, or --overwrite to make it anew"
            )
    same = record is not None and record.fingerprint == step.fingerprint
    if record is not None and same and record.finished and step.folder.is_dir():
        return "done"
    return "to resume" if any(step.work_folder(context).glob("checkpoint-*")) else "to do"


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
        time = _duration(guess.minutes) if step.state != "done" else ""
        lines.append(
            f"{step.stage.name:<{column}}{step.state:<11}{shape:<20}{parameters:>11}{examples:>14}{work:>10}{time:>11}"
            f"  {step.folder}"
        )
    total = sum(step.estimate.minutes for step in steps if step.state != "done")
    lines += [note for step in steps for note in step.notes]
    return "\n".join([*lines, f"About {_duration(total)} to go on this machine."])


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(minutes: float) -> str:
    if minutes < 120:
        return f"{minutes:.1f} min"
    hours = minutes / 60
    return f"{hours:.0f} hours" if hours < 72 else f"{hours / 24:,.0f} days"


def _difference(record: StageRecord, step: Step) -> str:
    """Name the first setting or input in which a record differs from a step."""
    now = json.loads(json.dumps({"settings": step.stage.settings(), "inputs": dict(step.inputs)}))
    for part, before, prefix in (
        ("settings", record.settings or {}, f"{step.stage.name}."),
        ("inputs", record.inputs or {}, ""),
    ):
        for name, value in now[part].items():
            if before.get(name) != value:
                return f"{prefix}{name}: {before.get(name)} instead of {value}"
    return "another version of what comes before it"
