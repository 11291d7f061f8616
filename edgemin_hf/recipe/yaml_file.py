"""A recipe from YAML, with all its types: errors in one line. As a program it writes `schema.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemin_hf.distillation.known import METHODS
from edgemin_hf.recipe.errors import RecipeError
from edgemin_hf.recipe.keys import SCHEMA, read_settings, stage_name
from edgemin_hf.recipe.schema import RawText, Recipe, Student, Teacher
from edgemin_hf.recipe.stages.known import SETTINGS, ParsedRecipe
from edgemin_hf.recipe.stages.quantize import Pruning, Reconstruction
from edgemin_hf.tasks.known import NAMED


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[ParsedRecipe, dict[str, Any]]:
    """Read a recipe and check it alone: keys, types, values, the order of the stages.

    Args:
        path: A YAML file.
        overrides: Settings "key=value", the key dotted: "seed", "task.max_length", or a stage's name and its key as in
            "distill.max_steps".

    Returns:
        The recipe, and the plain settings that it was made from.

    Raises:
        RecipeError: If it can't be read or is not possible.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.recipe import load_recipe
        >>> settings = {"name": "demo", "output_dir": "run", "teacher": {"model": "me/bert"}}
        >>> settings |= {"raw_text": {"files": ["text.txt"]}, "stages": [{"stage": "distill", "method": "minilmv2"}]}
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "demo.yaml").write_text(json.dumps(settings))  # JSON is YAML
        ...     recipe, plain = load_recipe(Path(folder, "demo.yaml"), ["distill.max_steps=100", "seed=1"])
        >>> recipe.seed, recipe.stages[0].max_steps, plain["seed"]
        (1, 100, 1)
    """
    settings = read_settings(path, overrides)
    return _parsed(path, settings), settings


def load_rivals(path: Path, overrides: Sequence[str] = ()) -> tuple[ParsedRecipe, dict[str, Any]]:
    """Read a recipe as `load_recipe` does, and leave of its stages the rivals alone, in a folder of their own.

    Their settings are those of its own stage `rivals` where it has one, else the defaults.
    """
    settings = read_settings(path, overrides)
    _parsed(path, settings)
    own = next((stage for stage in settings["stages"] if stage["stage"] == "rivals"), {"stage": "rivals"})
    settings = {**settings, "output_dir": f"{settings['output_dir']}-rivals", "stages": [own], "assistant": None}
    return _parsed(path, settings), settings


def _parsed(path: Path, settings: dict[str, Any]) -> ParsedRecipe:
    try:
        # As JSON, where strict types still let a list be a tuple.
        return TypeAdapter(ParsedRecipe).validate_json(json.dumps(settings))
    except ValidationError as error:
        raise RecipeError(f"{path}: {_explain(error, settings)}") from None
    except TypeError as error:
        raise RecipeError(f"{path}: {error}; allowed: text, numbers, lists and mappings") from None


def json_schema() -> str:
    """Return the JSON Schema of a recipe, as `schema.json` has it: keys, types and choices, without words on them."""
    schema = TypeAdapter(ParsedRecipe).json_schema()
    return json.dumps(_without_words(schema), indent=1, ensure_ascii=False) + "\n"


def write_schema() -> None:
    """Write `schema.json`: to be done once where a stage, method, task or setting is new."""
    Path(__file__).with_name(SCHEMA).write_text(json_schema(), encoding="utf-8")


def _without_words(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_words(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # Text is a description or a title; a mapping is a setting of such a name.
    told = {n: v for n, v in schema.items() if not (n in ("description", "title") and isinstance(v, str))}
    return {name: _without_words(value) for name, value in told.items()}


def _names(settings: type) -> str:
    return ", ".join(f.name for f in fields(settings) if f.init)


_PARTS: dict[str, type] = {"teacher": Teacher, "student": Student, "assistant": Student, "raw_text": RawText}
_PARTS_OF_STAGES: dict[str, type] = {"pruning": Pruning, "reconstruction": Reconstruction}


def _explain(error: ValidationError, settings: dict[str, Any]) -> str:
    """Turn the first of pydantic's findings into one line that names field, value and what is allowed."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    allowed = _PARTS.get(path[0], Recipe) if len(path) > 1 else Recipe
    if path[:1] == ["task"] and len(path) > 1:
        allowed = NAMED[path.pop(1)]  # the task's type, by which pydantic chose
    if len(path) > 2 and path[0] == "stages":
        # ("stages", 3, "distill:minilm", "max_steps") is written distill.max_steps, as `--set` would have it.
        allowed, stage = SETTINGS[path[2]], settings["stages"][int(path[1])]
        path = [stage_name(stage), *path[3:]]
        allowed = next((kind for part, kind in _PARTS_OF_STAGES.items() if part in path[1:-1]), allowed)
    name, value = ".".join(path), json.dumps(first["input"])[:80]
    if first["type"] == "value_error":
        return ".".join([*path, str(first["ctx"]["error"])])
    if first["type"] == "unexpected_keyword_argument":
        return f"{name}: {value}; allowed: {_names(allowed)}"
    if first["type"] == "missing":
        return f"{name}: missing; expected: a value, it has no default"
    if first["type"].startswith("union_tag"):
        return _explain_tag(name, str(first["ctx"].get("tag", "missing")))
    return f"{name}: {value}; allowed: {first['msg'].removeprefix('Input should be ')}"


def _explain_tag(name: str, tag: str) -> str:
    if name == "task":
        return f"task.type: {tag}; allowed: {', '.join(NAMED)}"
    stage, _, method = tag.partition(":")
    if not name.startswith("stages"):
        return f"{name}.method: {tag}; allowed: {', '.join(m for m, c in METHODS.items() if c.teacher_head is None)}"
    stages = list(dict.fromkeys(known.partition(":")[0] for known in SETTINGS))
    if stage not in stages:
        return f"{name}.stage: {stage}; allowed: {', '.join(stages)}"
    methods = [known.partition(":")[2] for known in SETTINGS if known.startswith(f"{stage}:")]
    return f"{stage}.method: {method}; allowed: {', '.join(methods)}"


if __name__ == "__main__":
    write_schema()
