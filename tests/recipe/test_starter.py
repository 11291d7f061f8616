"""First recipes by `edgemin recipe new`: of every task they parse, and what is not possible is one line."""

import pytest
import yaml

from edgemin_hf.cli import main
from edgemin_hf.recipe.arguments import TASKS as ALLOWED
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.known import TASKS

BASE = ["--teacher", "teacher", "--train-file", "train.tsv", "--test-file", "test.tsv"]


def new(task, *more):
    return main(["recipe", "new", "--task", task, *BASE, *more])


def test_the_tasks_are_those_that_there_are():
    assert set(ALLOWED) == set(TASKS)


@pytest.mark.parametrize("task", ALLOWED)
def test_of_every_task_it_parses_and_says_what_each_part_is(task, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    more = ["--validation-file", "test.tsv"] if task == "sentence_embedding" else []
    assert new(task, *more, "--output", "recipes/my recipe.yaml", "--layers", "2") == 0
    assert (
        capsys.readouterr().out
        == "written: recipes/my recipe.yaml; next: edgemin run recipes/my recipe.yaml --dry-run\n"
    )
    recipe, settings = load_recipe(place / "recipes/my recipe.yaml")
    assert recipe.task.type == task
    assert (recipe.name, settings["teacher"]["model"], settings["student"]) == (
        "my recipe",
        "../teacher",
        {"num_hidden_layers": 2},
    )
    assert settings["task"]["train_file"] == "../train.tsv"
    assert ("finetune" in [stage.stage for stage in recipe.stages]) == (task not in ("sentence_embedding", "masked_lm"))
    report = next(stage for stage in recipe.stages if stage.stage == "report")
    assert (report.license, report.language) == (None, None)  # the teacher's, not ours to choose
    text = (place / "recipes/my recipe.yaml").read_text()
    assert int(text.split("# max_length: ")[1].split()[0]) == recipe.task.max_length
    stages = text.split("stages:\n")[1].split("  - stage: ")[1:]
    assert all(
        "#" in stage.split("\n")[0] or "#" in before for before, stage in zip(["#", *stages], stages, strict=False)
    )


def test_it_dry_runs_as_it_stands(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert new("text_classification", "--text-column", "text", "--label-column", "label") == 0
    assert main(["run", "recipe.yaml", "--dry-run", "--set", "task.max_length=24"]) == 0
    assert "report" in capsys.readouterr().out


def test_columns_and_paths_are_the_tasks_own(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    train = str(place / "train.tsv")
    given = ["--text-column", "yes", "--label-column", "a: b", "--train-file", train, "--teacher", "me/bert"]
    assert new("token_classification", *given, "--output", "new/a.yaml") == 0
    settings = yaml.safe_load((place / "new/a.yaml").read_text())
    assert settings["task"] == {
        "type": "token_classification",
        "train_file": train,
        "test_file": "../test.tsv",
        "tokens_column": "yes",
        "tags_column": "a: b",
    }
    assert settings["teacher"] == {"model": "me/bert"}
    assert "student" not in settings


WRONG = {
    "there already": (["text_classification"], "--output: recipe.yaml, which is there already; allowed: a new file"),
    "no file": (
        ["regression", "--train-file", "none.tsv"],
        "--train-file: none.tsv, which is no file; allowed: an exis",
    ),
    "no column": (
        ["question_answering", "--text-column", "a"],
        "--text-column: a for question_answering; allowed: none",
    ),
    "no labels": (["masked_lm", "--label-column", "a"], "--label-column: a for masked_lm; allowed: --text-column"),
    "nothing to choose by": (["sentence_embedding"], "--validation-file: missing; expected: a table of pairs"),
    "no layers": (["multi_label", "--layers", "0"], "--layers: 0; allowed: 1 or more"),
    "a file for a folder": (["multi_label", "--output", "train.tsv/a.yaml"], "--output: train.tsv, which is a file; "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_possible_is_one_line_and_writes_nothing(case, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    arguments, message = WRONG[case]
    if case == "there already":
        (place / "recipe.yaml").write_text("mine")
    assert new(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"edgemin: {message}")
    assert not (place / "recipe.yaml").exists() or (place / "recipe.yaml").read_text() == "mine"


def test_neither_or_no_such_task_is_told(capsys):
    for arguments in (["recipe"], ["recipe", "new", "--task", "poetry", *BASE]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert "edgemin recipe" in capsys.readouterr().err
