import re
from pathlib import Path

import pytest

import edgemin_hf
from edgemin_hf.cli import main
from edgemin_hf.recipe.order import check_order
from edgemin_hf.recipe.schema import Product, RecipeError
from edgemin_hf.recipe.stages.known import STAGES
from edgemin_hf.recipe.yaml_file import load_recipe
from tests.helpers.recipes import write_recipe


def stages(*listed):
    """Change a recipe's stages to those that are named, or given as settings."""

    def change(recipe):
        recipe["stages"] = [{"stage": one} if isinstance(one, str) else one for one in listed]

    return change


def named(stage, name, **settings):
    return {"stage": stage, "name": name, **settings}


WRONG = {
    "no student to export": (stages("finetune", "export"), "export needs a student; expected before it: distill or "),
    "nothing to evaluate": (stages("finetune", "task_distill", "evaluate"), "evaluate needs graphs; .*: export"),
    "nothing to measure": (
        stages("task_distill", "export", "benchmark"), "benchmark needs predictions; expected before it: evaluate",
    ),
    "nothing to report": (
        stages("task_distill", "export", "evaluate", "report"), "report needs a benchmark; expected .*: benchmark",
    ),
    "no vocabulary to cut": (stages("prune_vocabulary"), "prune_vocabulary needs a student; expected before it: "),
    "two quantisations": (
        stages("quantize", named("quantize", "again")), "again in place 2; allowed: before quantize, which leaves a",
    ),
    "two quantisations, pruned between": (
        stages("quantize", "prune", named("quantize", "again")), "again in place 3; allowed: before quantize, which",
    ),
    "learning after the cut": (
        stages("task_distill", "prune_vocabulary", named("task_distill", "again")), "again in place 3; allowed: before",
    ),
    "learning after the graphs": (stages("prune", "export", named("prune", "again")), "again in place 3; .* export,"),
    "two exports": (stages("prune", "export", named("export", "again")), "again in place 3; allowed: before export, "),
    "a teacher of the student's": (stages("task_distill", "finetune"), "finetune in place 2; allowed: before task"),
    "one name twice": (stages("prune", "task_distill", "prune"), "prune twice; expected: a name of its own"),
    "one own name twice": (stages(named("prune", "a"), named("task_distill", "a")), "a twice; expected: a name of"),
    "another's default name": (
        stages(named("task_distill", "prune"), "prune"), "prune twice; expected: a name of its own",
    ),
    "another's folder": (
        stages("finetune", named("prune", "teacher")), "teacher, whose folder would be that of finetune; exp",
    ),
    "the records' folder": (stages(named("prune", "stages")), "stages, whose folder would be that of the records"),
    "the checkpoints' folder": (stages(named("prune", "work")), "work, whose folder would be that of the check"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_order_that_can_not_be_tells_what_is_missing_or_in_the_way(case, tmp_path):
    change, message = WRONG[case]
    with pytest.raises(RecipeError, match=f"stages: {message}"):
        load_recipe(write_recipe(tmp_path, change))


@pytest.mark.parametrize("name", ["a/b", "..", "two words", ".hidden"])
def test_a_name_is_one_that_a_folder_can_have(tmp_path, name):
    with pytest.raises(RecipeError, match=f"name: {re.escape(name)}; allowed: letters, digits, _ and -"):
        load_recipe(write_recipe(tmp_path, stages(named("prune", name))))


def test_a_name_is_text(tmp_path):
    with pytest.raises(RecipeError, match=r"3\.name: 3; allowed: a valid string"):
        load_recipe(write_recipe(tmp_path, stages(named("prune", 3))))


def test_names_and_orders_that_can_be(tmp_path):
    for change in (
        stages(named("prune", "task_distill"), "prune"),  # a default name that no other stage here has
        stages("prune", "quantize", named("prune", "again"), "prune_vocabulary", "export"),
        stages("distill", named("distill", "wider_text"), "export"),
        stages("distill", "task_distill", "prune", "prune_vocabulary", "quantize", "export"),
        stages(
            named("finetune", "my-teacher"), named("task_distill", "teacher"), named("export", "graphs"), "evaluate"
        ),
    ):
        recipe, _ = load_recipe(write_recipe(tmp_path, change))
        folders = [stage.folder for stage in recipe.stages]
        assert len(set(folders)) == len(folders)


def test_what_a_stage_needs_some_stage_or_the_recipe_leaves():
    given = {Product.RAW_TEXT, Product.TASK, Product.MODEL}
    left = {product for stage in STAGES for product in stage.leaves}
    for stage in STAGES:
        assert {*stage.needs, *stage.not_after} <= left | given, stage
    assert left <= set(Product)
    with pytest.raises(ValueError, match="stages: none; expected: at least one"):
        check_order([], given, STAGES)


def test_only_stages_ask_what_kind_of_stage_one_is():
    """Whatever else there is knows stages by what they need, leave and do; their reference prints their classes."""
    root = Path(edgemin_hf.__file__).parent
    asks = re.compile(r"\b(isinstance|issubclass|getattr|hasattr)\((\w+\.)?(stage|other|first|last|before|after),")
    found = [
        f"{file.relative_to(root)}: {line.strip()}"
        for file in root.rglob("*.py")
        if root / "recipe/stages" not in file.parents and file != root / "recipe/reference.py"
        for line in file.read_text().splitlines()
        if asks.search(line)
    ]
    assert found == []
    assert asks.search("if isinstance(step.stage, Prune):")
    context = (root / "recipe/context.py").read_text()
    assert not re.search(r"recipe\.stages\b.* import|\.stage ==", context)


def test_the_plan_shows_both_names(place, capsys):
    first = {"stage": "prune", "head_sparsity": 0.25}
    change = stages("finetune", first, "task_distill", named("prune", "prune_again", head_sparsity=0.25))
    recipe = write_recipe(place, change)
    arguments = ["run", str(recipe), "--dry-run", "--set", "prune_again.head_sparsity=0.5"]
    assert main(arguments) == 0
    plan = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert plan == ["finetune", "prune", "task_distill", "prune_again"]
    read, _ = load_recipe(recipe, arguments[-1:])
    assert [stage.settings().get("head_sparsity") for stage in read.stages] == [None, 0.25, None, 0.5]
    assert main([*arguments, "--set", "prune_again.head_sparsity=2"]) == 2
    assert "prune_again.head_sparsity: 2.0; allowed: 0 to below 1" in capsys.readouterr().err
