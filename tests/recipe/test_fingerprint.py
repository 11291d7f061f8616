import json
import os
import re
import shutil

import pytest
import yaml

from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.fingerprint import metric_inputs, model_inputs, student_inputs
from edgemin_hf.recipe.plan import make_plan
from edgemin_hf.recipe.schema import Student
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks import TextClassification
from tests.helpers.recipes import only, put, write_recipe


def copied(place, target):
    """The same recipe and files elsewhere, written at another time."""
    shutil.copytree(place, target)
    for file in target.rglob("*"):
        if file.is_file():
            os.utime(file, (1, 1))
    return target / "recipe.yaml"


def fingerprints(path):
    recipe, _ = load_recipe(path)
    return [step.fingerprint for step in make_plan(recipe, path.parent)]


@pytest.mark.long
def test_another_place_or_time_changes_nothing_and_another_content_does(place, tmp_path_factory):
    first = write_recipe(place, only("finetune", "distill", "task_distill", "export", "evaluate"))
    second = copied(place, tmp_path_factory.mktemp("elsewhere") / "copy")
    (second.parent / "train.tsv").rename(second.parent / "renamed.tsv")
    settings = yaml.safe_load(second.read_text())
    settings["task"]["train_file"] = str(second.parent / "renamed.tsv")
    settings["raw_text"]["files"] = ["renamed.tsv"]
    settings["teacher"]["model"] = str((second.parent / "teacher").rename(second.parent / "moved"))
    second.write_text(yaml.safe_dump(settings))
    before = fingerprints(first)
    assert fingerprints(second) == before
    with (second.parent / "test.tsv").open("a") as file:
        file.write("where is my card\tcard_problem\n")
    assert [a == b for a, b in zip(before, fingerprints(second), strict=True)] == [True] * 4 + [False]
    tokenizer = second.parent / "moved/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert fingerprints(second)[0] != before[0]


@pytest.mark.long
def test_another_machine_is_told_and_taken_if_asked_for(place, capsys, monkeypatch):
    monkeypatch.setattr(Context, "bf16", property(lambda self: False))
    path = write_recipe(place, only("finetune"))
    assert main(["run", str(path)]) == 0
    made = (place / "run/teacher/model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    elsewhere = ["run", str(path), "--set", "threads=2"]
    assert main(elsewhere) == 2
    told = capsys.readouterr().err
    assert "whose teacher was made with threads: 1 -> 2" in told
    assert "allowed: --resume-anyway" in told
    assert main([*elsewhere, "--resume-anyway"]) == 0
    assert "finetune: made with threads: 1 -> 2" in capsys.readouterr().out
    assert (place / "run/teacher/model.safetensors").stat().st_mtime_ns == made
    monkeypatch.setattr(Context, "bf16", property(lambda self: True))
    assert main(["run", str(path), "--dry-run"]) == 2
    assert "precision: fp32 -> bf16" in capsys.readouterr().err
    # A precision that the recipe itself asks for is another training.
    assert main(["run", str(path), "--set", "precision=bf16", "--resume-anyway"]) == 2
    assert "made with precision: auto -> bf16" in capsys.readouterr().err
    assert main([*elsewhere, "--overwrite", "--dry-run"]) == 0
    assert "finetune        to replace" in capsys.readouterr().out


def test_a_model_of_the_hub_counts_by_its_commit(place, monkeypatch):
    path = write_recipe(place, put("teacher", {"model": "edge/mini", "revision": "v1"}))
    recipe, settings = load_recipe(path)
    context = Context(recipe, settings, place, place / "run")
    asked = []

    def resolve(model, *, revision=None, weights=True):
        asked.append((model, revision, weights))
        return type("Found", (), {"path": str(place / "teacher"), "commit": "c0ffee", "source": "the Hub"})()

    monkeypatch.setattr("edgemin_hf.recipe.shapes.resolve_checkpoint", resolve)
    assert model_inputs(context, "edge/mini", "v1") == {"model": "edge/mini", "commit": "c0ffee"}
    # Whatever the branch is by then, the weights are those of the commit that was looked at.
    assert context.base_folder == str(place / "teacher")
    assert asked == [("edge/mini", "v1", False), ("edge/mini", "c0ffee", True)]


WRONG = {
    "of a folder": (put("teacher.revision", "v1"), "teacher.model: .*is a folder, which has no revision v1"),
    "without a checkpoint": (put("student.revision", "v1"), "student.revision: v1; allowed: beside checkpoint"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_revision_of_nothing(case, place, capsys):
    change, message = WRONG[case]
    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.long
def test_the_record_tells_what_it_was_made_of(place, monkeypatch):
    monkeypatch.setattr(Context, "bf16", property(lambda self: False))
    path = write_recipe(place, only("finetune"))
    assert main(["run", str(path)]) == 0
    record = json.loads((place / "run/stages/finetune.json").read_text())
    assert set(record["inputs"]["teacher"]) == {"content"}
    assert record["machine"] == {"threads": 1, "processes": 1, "precision": "fp32"}
    assert "threads" not in record["inputs"]


def test_a_metric_of_ones_own_counts_by_its_content(tmp_path):
    def inputs(metric):
        asked = ["accuracy", {"name": metric, "trust_remote_code": True}]
        return metric_inputs(TextClassification("a.csv", "b.csv", metric=asked), tmp_path)

    (tmp_path / "own").mkdir()
    for file, name in (("cost.py", "cost.py"), ("own/own.py", "./own")):
        (tmp_path / file).write_text("cost = 1")
        first = inputs(name)
        (tmp_path / file).write_text("cost = 2")
        assert len(first) == 1
        assert inputs(name) != first
    assert inputs("someone/score") == metric_inputs(TextClassification("a.csv", "b.csv"), tmp_path) == []


def test_a_student_of_before_dropout_was_a_setting_is_the_same(place):
    recipe, settings = load_recipe(write_recipe(place))
    context = Context(recipe, settings, place, place / "run")
    assert "dropout" not in student_inputs(context, Student(num_hidden_layers=2))
    assert student_inputs(context, Student(dropout=0.0))["dropout"] == 0.0
