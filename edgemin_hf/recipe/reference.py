"""Every setting of a recipe as Markdown: types and defaults are the code's, meanings the docstrings'."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from edgemin_hf.recipe.schema import RawText, Student, Teacher
from edgemin_hf.recipe.stages.base import Stage
from edgemin_hf.recipe.stages.distill import InnerDistillation
from edgemin_hf.recipe.stages.gate import Gate
from edgemin_hf.recipe.stages.known import STAGES, ParsedRecipe
from edgemin_hf.recipe.stages.methods import SETTINGS_OF_METHODS, Also
from edgemin_hf.recipe.stages.quantize import Reconstruction
from edgemin_hf.recipe.stages.training import TaskStage, TrainingStage
from edgemin_hf.tasks.base import Split
from edgemin_hf.tasks.known import NAMED
from edgemin_hf.tasks.table_task import TableTask

_INTRODUCTION = """\
# Recipe reference

Every setting of a recipe, as `edgemin recipe --reference` prints them. The default *none* is YAML's `null`, and None
in words; a setting without a default must be given. Paths are relative to the recipe, `output_dir` to where you call
from.
"""
_TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "mapping"}
_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_COMMON = (TaskStage, TrainingStage, Stage)
"""Classes whose settings are told once for all stages that have them."""
_TAGS = ("type", "stage", "method")
"""Settings that say which other ones there are."""


class Setting(NamedTuple):
    """A row of the reference.

    Attributes:
        name: The key in a recipe.
        type: What it may be, in words.
        default: Its default as YAML; "" where there is none.
        meaning: What it means; "" where no docstring says so.
    """

    name: str
    type: str
    default: str
    meaning: str


def reference() -> str:
    """Return the reference as Markdown: a table for each part of a recipe, task, stage and method."""
    return "\n".join([_INTRODUCTION, *(f"{title}\n\n{_table(rows)}" for title, rows in sections())])


def sections() -> Iterator[tuple[str, Sequence[Setting]]]:
    """Yield each part's title, with a few words on it, and its settings."""
    yield "## The recipe", settings_of(ParsedRecipe)
    yield "## `teacher`", settings_of(Teacher)
    yield "## `student` and `assistant`", settings_of(Student)
    yield "## `raw_text`", settings_of(RawText)
    yield "## `task`\n\nThe settings of all tasks but GLUE's:", settings_of(TableTask)
    yield "A split under `further_tests`:", settings_of(Split)
    for name, task in NAMED.items():
        yield f"### `type: {name}`\n\n{_first_line(task)}", settings_of(task, TableTask)
    yield "## `stages`\n\nThe settings of all stages:", settings_of(Stage)
    yield (
        "Those of all stages that train, by their names in `transformers.TrainingArguments`:",
        settings_of(TrainingStage, Stage),
    )
    yield (
        "Those of the stages that learn from the teacher's answers and the labels:",
        settings_of(TaskStage, TrainingStage),
    )
    for stage in STAGES:
        common = next(kind for kind in _COMMON if issubclass(stage, kind))
        words = [f"### `stage: {stage.stage}`", _first_line(stage)]
        if common is not Stage:
            words.append("With the settings of all stages that train" + _further(stage) + ".")
        yield "\n\n".join(words), settings_of(stage, common)
    yield "### `quantize.reconstruction`", settings_of(Reconstruction)
    yield "### `report.gate`", settings_of(Gate)
    yield "## Methods\n\nA method under `also` has this setting beside its own:", settings_of(Also)
    for name, method in SETTINGS_OF_METHODS.items():
        yield f"### `method: {name}`\n\n{_first_line(method)}", settings_of(method)


@cache
def settings_of(kind: type, common: type | None = None) -> tuple[Setting, ...]:
    """Return the settings that a class has, without those that another has just so."""
    schema = TypeAdapter(kind).json_schema()
    meant = _meanings(kind)
    found = (
        Setting(field.name, _type(schema["properties"][field.name], schema), _default(field), meant.get(field.name, ""))
        for field in fields(kind)
        if field.init and field.name not in _TAGS
    )
    beside = settings_of(common) if common else ()
    return tuple(setting for setting in found if setting not in beside)


def _meanings(kind: type) -> dict[str, str]:
    """Return what each setting means, by the `Attributes` of the docstrings of a class and of those it inherits."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        words = inspect.cleandoc(part.__dict__.get("__doc__") or "")
        attributes = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", words, re.DOTALL | re.MULTILINE)
        for entry in re.split(r"\n(?=\S)", inspect.cleandoc(f"\n{attributes[1]}")) if attributes else ():
            name, _, meaning = entry.partition(":")
            found[name] = " ".join(meaning.split())
    return found


def _first_line(kind: type) -> str:
    words = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0]
    return words.partition(" See `")[0].replace("\n", " ")


def _further(stage: type) -> str:
    if issubclass(stage, InnerDistillation):
        return ", and those of its `method`"
    return ", and those of the teacher's answers" if issubclass(stage, TaskStage) else ""


def _type(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _type(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    alternatives = [one for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) if one.get("type") != "null"]
    if alternatives:
        # Each once: a method may be any of many mappings.
        return " or ".join(dict.fromkeys(_type(one, whole) for one in alternatives))
    if schema.get("type") == "array":
        items = schema.get("items")
        return f"list: {_type(items, whole)}" if items else "list"
    limits = " and ".join(f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema)
    return f"{_TYPES.get(schema.get('type', 'anything'), schema.get('type', 'anything'))} {limits}".strip()


def _default(field: Field[Any]) -> str:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if default is MISSING:
        return ""
    if default is None:
        return "*none*"
    return f"`{json.dumps({} if is_dataclass(default) else default)}`"


def _table(settings: Sequence[Setting]) -> str:
    if not settings:
        return ""
    rows = [f"| `{one.name}` | {one.type} | {one.default} | {one.meaning} |" for one in map(_escaped, settings)]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _escaped(setting: Setting) -> Setting:
    return Setting(*(part.replace("|", "\\|") for part in setting))
