"""The reference of a recipe's settings, which is made of the code."""

from dataclasses import fields

import pytest

from edgemin_hf.cli import main
from edgemin_hf.recipe.reference import reference, sections
from edgemin_hf.recipe.schema import RawText, Recipe, Student, Teacher
from edgemin_hf.recipe.stages.gate import Gate
from edgemin_hf.recipe.stages.known import SETTINGS, STAGES
from edgemin_hf.recipe.stages.methods import Also
from edgemin_hf.recipe.stages.quantize import Pruning, Reconstruction
from edgemin_hf.tasks.known import NAMED

KINDS = (Recipe, Teacher, Student, RawText, *NAMED.values(), Also, Gate, Reconstruction, Pruning, *SETTINGS.values())


@pytest.fixture(scope="module")
def parts():
    return dict(sections())


def rows(parts, title):
    (found,) = [part for name, part in parts.items() if name.startswith(title)]
    return {row.name: row for row in found}


def test_every_setting_has_a_meaning(parts):
    assert [f"{title}: {row.name}" for title, part in parts.items() for row in part if not row.meaning] == []


def test_every_setting_is_told_somewhere(parts):
    told = {row.name for part in parts.values() for row in part} | {"type", "stage", "method"}
    assert {field.name for kind in KINDS for field in fields(kind) if field.init} <= told
    titles = [title.split("\n")[0] for title in parts]
    assert [f"### `stage: {stage.stage}`" for stage in STAGES] == [one for one in titles if "`stage: " in one]
    assert [f"### `type: {name}`" for name in NAMED] == [one for one in titles if "`type: " in one]


def test_types_and_defaults_are_the_code_s(parts):
    seed, threads = (rows(parts, "## The recipe")[name] for name in ("seed", "threads"))
    assert seed[1:3] == ("whole number ≥ 0 and < 4294967296", "`0`")
    assert threads[1:3] == ("whole number ≥ 1 and ≤ 1024", "*none*")
    quantize = rows(parts, "### `stage: quantize`")
    assert quantize["embeddings"][1:3] == ("`int8`, `int4`, `fp32`", '`"int8"`')
    assert quantize["pruning"][1:3] == ("mapping", "*none*")
    assert "learning_rate" not in quantize  # of all stages that train
    assert rows(parts, "Those of all stages that train")["learning_rate"][1:3] == ("number > 0", "`0.0002`")
    assert rows(parts, "### `type: reranking`")["text_column"].default == '`"query"`'
    assert rows(parts, "### `method: minilmv2`")["teacher_layer"].type == "whole number or `search`"
    assert rows(parts, "## The recipe")["name"].default == ""
    assert rows(parts, "### `stage: report`")["gate"][1:3] == ("mapping", "`{}`")


def test_the_command_prints_tables_that_are_whole(capsys):
    assert main(["recipe", "--reference"]) == 0
    printed = capsys.readouterr().out
    assert printed == reference()
    assert printed.endswith("|\n")
    lines = [line.replace("\\|", "") for line in printed.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {5}
