"""A small recipe, and changes to it."""

import copy
import json

import yaml

from edgemin_hf.utils.content import sha256_of

RECIPE = {
    "name": "tiny",
    "output_dir": "run",
    "teacher": {"model": "teacher"},
    "task": {"train_file": "train.tsv", "test_file": "test.tsv", "max_length": 24},
    "raw_text": {"files": ["train.tsv"], "max_length": 24, "pack": False},
    "student": {"num_hidden_layers": 2},
    "threads": 1,
    "stages": [
        {"stage": "finetune", "max_steps": 4},
        {"stage": "distill", "relation_heads": 8, "max_steps": 4},
        {"stage": "task_distill", "max_steps": 4},
        {"stage": "prune", "head_sparsity": 0.5, "ffn_sparsity": 0.5, "max_steps": 4},
        {"stage": "quantize", "max_steps": 4},
        {"stage": "export", "fidelity_texts": 16},
        {"stage": "evaluate"},
        {"stage": "benchmark", "sentences": 8, "rounds": 2},
        {"stage": "report"},
    ],
}


NAMES = [stage["stage"] for stage in RECIPE["stages"]]


def write_recipe(root, change=lambda recipe: None, name="recipe.yaml"):
    recipe = copy.deepcopy(RECIPE)
    recipe["output_dir"] = str(root / "run")
    change(recipe)
    (root / name).write_text(yaml.safe_dump(recipe))
    return root / name


def finetuning(place, output, **settings):
    """Write a recipe of a fine-tuning alone, whose run has a folder of its own; return its path as text."""

    def change(recipe):
        recipe["output_dir"] = str(place / output)
        recipe["stages"] = [{"stage": "finetune", **settings}]

    return str(write_recipe(place, change, f"{output}.yaml"))


def weights(place, output):
    return sha256_of(place / output / "teacher/model.safetensors")


def record(place, output):
    return json.loads((place / output / "stages/finetune.json").read_text())


def only(*names):
    def change(recipe):
        whole = copy.deepcopy(RECIPE["stages"])
        recipe["stages"] = [stage for name in names for stage in whole if stage["stage"] == name]

    return change


def put(*settings):
    """Change settings, given as paths and values in turn."""

    def change(recipe):
        for path, value in zip(settings[::2], settings[1::2], strict=True):
            *parents, last = path.split(".")
            target = recipe
            for parent in parents:
                target = target["stages"][NAMES.index(parent)] if parent in NAMES else target[parent]
            target[last] = value

    return change


def drop(path):
    return lambda recipe: recipe.pop(path)
