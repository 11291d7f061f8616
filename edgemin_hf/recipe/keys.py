"""A recipe as plain settings: YAML, `--set`, and a first look at its keys that needs neither PyTorch nor transformers.

The keys are those of `schema.json`, the JSON Schema of `ParsedRecipe`, which editors may use too. It is written by
`python -m edgemin_hf.recipe.yaml_file`, and a test keeps it the same. What a value may be, the types say afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from edgemin_hf.recipe.errors import RecipeError

SCHEMA = "schema.json"
"""File beside this one."""
DEFAULT_METHOD = "minilmv2"
"""The method of a stage that has a choice and names none."""
_Schema = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a number (2e-4 is one) and of a mapping: no key stands in it twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[object] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                name = self.construct_object(key)
                if name in keys:
                    raise yaml.MarkedYAMLError(problem=f"{name} stands there twice", problem_mark=key.start_mark)
                keys.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def read_settings(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a recipe as plain settings, and check that it has no key, stage, method or choice that there is not.

    Args:
        path: A YAML file.
        overrides: Settings "key=value", as of `load_recipe`.

    Returns:
        The settings.

    Raises:
        RecipeError: If it can't be read, or names something that there is not.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.recipe import read_settings
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "demo.yaml").write_text("{name: demo, seed: 2e-4}")
        ...     read_settings(Path(folder, "demo.yaml"), ["teacher.model=me/bert"])
        {'name': 'demo', 'seed': 0.0002, 'teacher': {'model': 'me/bert'}}
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such file; allowed: a recipe in YAML")
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{path}: {type(settings).__name__}; allowed: a mapping of {_names(_schema())}")
    for override in overrides:
        _override(settings, override)
    try:
        json.dumps(settings, default=str, skipkeys=True)
    except ValueError:
        raise RecipeError(f"{path}: a mapping or list that holds itself; expected: plain values") from None
    wrong = next(_unknown(settings, _schema(), []), None)
    if wrong is not None:
        raise RecipeError(f"{path}: {wrong}")
    return settings


def _override(settings: dict[str, Any], override: str) -> None:
    key, found, value = override.partition("=")
    if not found or not key:
        raise RecipeError(f"--set {override}; allowed: key=value")
    *parents, name = key.split(".")
    target: Any = settings
    fields = _names(_schema())
    for depth, parent in enumerate(parents):
        stages = settings.get("stages") if depth == 0 else None
        listed = [one for one in stages if isinstance(one, dict)] if isinstance(stages, list) else []
        stage = [one for one in listed if stage_name(one) == parent]
        if depth == 0 and not stage and parent not in fields.split(", "):
            allowed = ", ".join([fields, *map(stage_name, listed)])
            raise RecipeError(f"--set {override}: {parent}: no stage; allowed: {allowed}")
        target = stage[0] if stage else target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise RecipeError(f"--set {override}: {parent} has no settings of its own")
    try:
        target[name] = yaml.load(value, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not YAML") from None


def stage_name(stage: Mapping[str, Any]) -> str:
    """Return the name by which `--set` and messages know a stage's settings."""
    return str(stage.get("name") or stage.get("stage"))


@cache
def _schema() -> _Schema:
    found: _Schema = json.loads(resources.files("edgemin_hf.recipe").joinpath(SCHEMA).read_text(encoding="utf-8"))
    return found


def _names(schema: _Schema) -> str:
    return ", ".join(schema["properties"])


def _unknown(value: Any, schema: _Schema, path: list[str]) -> Iterator[str]:
    """Yield a line for each key, tag or choice in a value that its schema does not have, the first first."""
    branches = list(_branches(schema))
    choices = [choice for branch in branches for choice in branch.get("enum", ())]
    if isinstance(value, dict):
        objects = [branch for branch in branches if "properties" in branch]
        for tag in ("stage", "type", "method"):
            known = list(dict.fromkeys(_const(branch, tag) for branch in objects))
            given = value.get(tag, DEFAULT_METHOD if tag == "method" and "stage" in value else None)
            if len(known) > 1 and given is not None:
                if given not in known:
                    place = path if tag == "stage" else _named(path, value)
                    yield f"{'.'.join([*place, tag])}: {given}; allowed: {', '.join(map(str, known))}"
                    return
                objects = [branch for branch in objects if _const(branch, tag) == given]
        yield from _unknown_keys(value, objects, path)
        any_key = [branch["additionalProperties"] for branch in branches if branch.get("additionalProperties")]
        if len(any_key) == 1 and isinstance(any_key[0], dict):
            for key, inner in value.items():
                yield from _unknown(inner, any_key[0], [*path, str(key)])
    elif isinstance(value, list):
        items = [branch["items"] for branch in branches if "items" in branch]
        for number, inner in enumerate(value if len(items) == 1 else ()):
            yield from _unknown(inner, items[0], [*path, str(number)])
    elif isinstance(value, str) and choices and value not in choices and all(_chooses(branch) for branch in branches):
        *most, last = map(repr, choices)
        allowed = f"{', '.join(most)} or {last}" if most else last
        yield f"{'.'.join(path)}: {json.dumps(value)}; allowed: {allowed}"


def _unknown_keys(value: Mapping[str, Any], objects: Sequence[_Schema], path: list[str]) -> Iterator[str]:
    path = _named(path, value)
    for key, inner in value.items():
        found = [branch["properties"][key] for branch in objects if key in branch["properties"]]
        if objects and not found:
            yield f"{'.'.join([*path, str(key)])}: {json.dumps(inner, default=str)[:80]}; allowed: {_names(objects[0])}"
        elif found and all(schema == found[0] for schema in found):
            yield from _unknown(inner, found[0], [*path, str(key)])


def _named(path: list[str], value: Mapping[str, Any]) -> list[str]:
    """Return the path of a mapping, of a stage its name, as `--set` would have it."""
    return [stage_name(value)] if len(path) == 2 and path[0] == "stages" else path


def _branches(schema: _Schema) -> Iterator[_Schema]:
    """Yield what a value may be: the schema itself, or each of its alternatives."""
    if "$ref" in schema:
        schema = _schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    alternatives = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    for alternative in alternatives:
        yield from _branches(alternative)
    if not alternatives:
        yield schema


def _const(branch: _Schema, tag: str) -> Any:
    return branch["properties"].get(tag, {}).get("const")


def _chooses(branch: _Schema) -> bool:
    """Return whether a schema takes some texts alone, or none."""
    return "enum" in branch or branch.get("type") not in (None, "string")
