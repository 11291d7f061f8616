import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgemin_hf.recipe import keys
from edgemin_hf.recipe.errors import RecipeError
from edgemin_hf.recipe.keys import read_settings
from edgemin_hf.recipe.yaml_file import json_schema, load_recipe
from tests.helpers.recipes import put, write_recipe

WRONG = {
    "a key": (put("colour", "blue"), "colour: .blue.; allowed: name, output_dir, teacher"),
    "a key of a stage": (put("distill.relation_head", 8), "distill.relation_head: 8; allowed: .*relation_heads"),
    "a key of another method": (put("distill.beta", 1), "distill.beta: 1; allowed: .*relation_heads"),
    "a key of a part": (put("student.layer", [0]), "student.layer: .0.; allowed: checkpoint, "),
    "a key within a stage": (put("quantize.pruning", {"heads": 1}), "quantize.pruning.heads: 1; allowed: head_sp"),
    "a stage": (put("export.stage", "ship"), "stages.5.stage: ship; allowed: finetune, "),
    "a method": (put("distill.method", "nope"), "distill.method: nope; allowed: minilm, "),
    "a method beside": (put("prune.also", [{"method": "pkk"}]), "prune.also.0.method: pkk; allowed: minilm, "),
    "a task": (put("task.type", "ner"), "task.type: ner; allowed: text_classification, "),
    "a key of a task": (put("task.labels", 2), "task.labels: 2; allowed: train_file, "),
    "a choice": (put("quantize.weights", "int3"), "quantize.weights: .int3.; allowed: .int8. or .int4."),
    "a choice of the recipe": (put("precision", "bf61"), "precision: .bf61.; allowed: .auto., .bf16. or .fp32."),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_there_is_not_is_told_as_the_types_would(case, tmp_path, monkeypatch):
    change, message = WRONG[case]
    path = write_recipe(tmp_path, change)
    with pytest.raises(RecipeError, match=message) as first:
        read_settings(path)
    # Without the first look the types refuse the same.
    monkeypatch.setattr(keys, "_unknown", lambda *_: iter(()))
    with pytest.raises(RecipeError, match=re.escape(str(first.value).partition("; allowed")[0])):
        load_recipe(path)


TEXTS = {
    "a key twice": ("{text}threads: 2\n", "threads stands there twice.*line"),
    "a key of a stage twice": ("{text}- {{stage: export, stage: report}}\n", "stage stands there twice"),
    "a list that holds itself": ("{text}student: &loop\n  layers: [*loop]\n", "that holds itself"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_yaml_that_python_would_take_another_way_is_one_line(case, tmp_path):
    path = tmp_path / "recipe.yaml"
    head = "name: tiny\nthreads: 1\nstages:\n"
    text, message = TEXTS[case]
    path.write_text(text.format(text=head if "stage" in case else head.replace("stages:\n", "")))
    with pytest.raises(RecipeError, match=message) as error:
        read_settings(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_key_that_replaces_a_merged_one_stands_there_once(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("student: &one {num_hidden_layers: 2, hidden_size: 8}\nassistant: {<<: *one, hidden_size: 16}\n")
    assert read_settings(path)["assistant"] == {"num_hidden_layers": 2, "hidden_size": 16}


def test_the_schema_is_that_of_the_types():
    file = Path(keys.__file__).with_name(keys.SCHEMA)
    assert file.read_text() == json_schema(), "python -m edgemin_hf.recipe.yaml_file writes it"


def test_a_typo_is_told_before_anything_heavy_is_imported(tmp_path):
    path = write_recipe(tmp_path, put("distill.max_step", 3))
    code = f"""
import sys
from edgemin_hf.cli import main
assert main(["run", {str(path)!r}, "--dry-run"]) == 2
heavy = {{"torch", "transformers", "datasets", "pydantic", "numpy", "huggingface_hub", "accelerate"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "distill.max_step: 3; allowed: " in done.stderr
