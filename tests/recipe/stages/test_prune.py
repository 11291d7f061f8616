import json

import pytest

from edgemin_hf import load_pruned
from edgemin_hf.cli import main
from edgemin_hf.modeling.pruned_shape import pruned_shape
from tests.helpers.recipes import write_recipe
from tests.helpers.tasks import read_json

pytestmark = pytest.mark.long


def three(again):
    """Prune, learn the task, and prune again under another name."""

    def change(recipe):
        first = {"stage": "prune", "ffn_sparsity": 0.5, "max_steps": 2}
        recipe["stages"] = [{"stage": "finetune", "max_steps": 2}, first, again[0], again[1]]

    return change


def shape(folder):
    found = pruned_shape(load_pruned(folder).config)
    return sum(map(len, found.heads)), sum(found.neurons)


AGAIN = {"stage": "prune", "name": "prune_again", "head_sparsity": 0.25, "max_steps": 2}


@pytest.fixture(scope="module")
def twice(workplace, tmp_path_factory):
    root = tmp_path_factory.mktemp("twice")
    for path in workplace.iterdir():
        (root / path.name).symlink_to(path)
    recipe = write_recipe(root, three([{"stage": "task_distill", "max_steps": 2}, AGAIN]))
    assert main(["run", str(recipe)]) == 0
    return root


def test_a_stage_that_stands_twice_has_a_folder_and_a_record_of_its_name(twice):
    records = {name: read_json(twice / f"run/stages/{name}.json") for name in ("prune", "prune_again")}
    assert [(record["stage"], record["name"]) for record in records.values()] == [
        ("prune", "prune"), ("prune", "prune_again"),
    ]  # fmt: skip
    assert records["prune"]["settings"]["ffn_sparsity"] == 0.5
    assert records["prune_again"]["settings"]["head_sparsity"] == 0.25
    assert shape(twice / "run/prune") == (8, 64)
    assert shape(twice / "run/prune_again") == (6, 64)  # of what the first left


def test_what_is_done_is_not_done_again(twice, capsys):
    before = {path: path.stat().st_mtime_ns for path in (twice / "run").rglob("*") if path.is_file()}
    assert main(["run", str(twice / "recipe.yaml")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (twice / "run").rglob("*") if path.is_file()} == before
    plan = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert plan == [[name, "done"] for name in ("finetune", "prune", "task_distill", "prune_again")]


def test_another_setting_of_the_second_leaves_the_first_done(twice, capsys):
    arguments = ["run", str(twice / "recipe.yaml"), "--set", "prune_again.head_sparsity=0.5"]
    assert main(arguments) == 2
    assert "prune_again was made with prune_again.head_sparsity: 0.25 -> 0.5" in capsys.readouterr().err
    assert main([*arguments, "--overwrite", "--dry-run"]) == 0
    plan = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:5]}
    assert plan == {"finetune": "done", "prune": "done", "task_distill": "done", "prune_again": "to"}
    assert (
        main(["run", str(twice / "recipe.yaml"), "--set", "prune.head_sparsity=0.5", "--overwrite", "--dry-run"]) == 0
    )
    plan = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()[1:5]}
    assert plan == {"finetune": "done", "prune": "to", "task_distill": "to", "prune_again": "to"}


def test_pruning_quantising_and_pruning_again(place):
    quantize = {"stage": "quantize", "max_steps": 2}
    recipe = write_recipe(place, three([quantize, {**AGAIN, "scope": "model", "schedule": "cubic", "rounds": 1}]))
    settings = ["--set", "prune_again.max_steps=4"]
    assert main(["run", str(recipe), *settings]) == 0
    assert shape(place / "run/quantize") == (8, 64)
    assert shape(place / "run/prune_again") == (6, 64)
    made = json.loads((place / "run/prune_again/edgemin_config.json").read_text())["trainings"]
    # It went on as the quantised model that it was.
    assert made[-1]["quantization"] == made[-2]["quantization"] is not None
