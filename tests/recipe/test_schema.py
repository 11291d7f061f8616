import re
import shutil
import sys
from pathlib import Path

import pytest
from transformers import GPT2Config, PreTrainedModel

from edgemin_hf.cli import main
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.stages.distill import Distill
from edgemin_hf.recipe.yaml_file import load_recipe
from tests.helpers.models import tiny, write_tsv
from tests.helpers.recipes import drop, only, put, write_recipe

WRONG = {
    "unknown key": (put("colour", "blue"), "colour: .*blue.*; allowed: name, output_dir, teacher"),
    "unknown key of a stage": (put("distill.relation_head", 8), "distill.relation_head: 8; allowed: .*relation_heads"),
    "wrong type": (put("task.max_length", "long"), "task.max_length: .long.; allowed: a valid integer"),
    "a truth for a number": (put("seed", True), "seed: true; allowed: a valid integer"),
    "wrong type of a stage": (
        put("prune.head_sparsity", "half"),
        "prune.head_sparsity: .half.; allowed: a valid num",
    ),
    "no mapping": (put("teacher", 3), "teacher: 3; allowed: an object"),
    "missing key": (drop("task"), "task: missing"),
    "out of range": (put("prune.head_sparsity", 1.5), "prune.head_sparsity: 1.5; allowed: 0 to below 1"),
    "not positive": (put("distill.learning_rate", 0), "distill.learning_rate: 0; allowed: greater than 0"),
    "no batch": (put("quantize.per_device_train_batch_size", 0), "quantize.per_device_train_batch_size: 0; allowed: "),
    "no such group": (put("quantize.group_size", 48), "quantize.group_size: 48; allowed: 32, 64"),
    "no such weights": (put("quantize.weights", "int3"), "quantize.weights: .int3.; allowed: .int8. or .int4."),
    "no such ranges": (put("quantize.ranges", "guessed"), "quantize.ranges: .guessed.; allowed: .observed. or "),
    "a rate of ranges": (put("quantize.range_learning_rate", -1), "quantize.range_learning_rate: -1.*; allowed: 0 or"),
    "a range's end": (put("quantize.frozen_share", 1.5), "quantize.frozen_share: 1.5; allowed: 0 to 1"),
    "missing file": (put("task.train_file", "nowhere.tsv"), "task.train_file: .*nowhere.tsv, which is no file"),
    "missing raw text": (put("raw_text.files", ["nowhere.tsv"]), "raw_text.files: .*nowhere.tsv, which is no file"),
    "unknown ending": (put("task.test_file", "recipe.yaml"), "task.test_file: .*ends with .tsv"),
    "relation heads": (put("distill.relation_heads", 7), "distill.relation_heads: 7; allowed: a divisor of .* 32"),
    "teacher layer": (put("distill.teacher_layer", 4), "distill.teacher_layer: 4; allowed: 1 to 3"),
    "relations": (put("distill.relations", ["qz"]), "distill.relations: .*qz.*; allowed: .*qq"),
    "label column": (
        put("task.label_column", "intent"),
        "task.train_file: column 'intent' of .*; allowed: text, l",
    ),
    "text column": (put("raw_text.text_column", "body"), "raw_text.files: column 'body' of .*; allowed: text, label"),
    "empty dataset": (put("task.train_file", "empty.tsv"), "task.train_file: .*empty.tsv, which is empty"),
    "no rows": (put("task.test_file", "header.tsv"), "task.test_file: .*header.tsv, which is empty"),
    "too deep a student": (put("student.num_hidden_layers", 4), "student.num_hidden_layers: 4; allowed: 1 to 3"),
    "too wide a student": (put("student.hidden_size", 64), "student.hidden_size: 64; allowed: 1 to 32"),
    "an odd student": (put("student.num_attention_heads", 3), "student.num_attention_heads: 3; allowed: a divisor"),
    "another family": (put("student.model_type", "gpt2"), "student.model_type: gpt2; allowed: bert"),
    "a licence that the Hub refuses": (
        put("report.license", "Apache 2.0"),
        "report.license: Apache 2.0; allowed: .*mit",
    ),
    "a language's name": (
        put("report.language", "english"),
        "report.language: english; allowed: a code of two or three",
    ),
    "a language's region": (put("report.language", "en-GB"), "report.language: en-GB; allowed: a code of two or three"),
    "no such language": (put("report.language", "xx"), "report.language: xx; allowed: a code of two or three"),
    "no id of a dataset": (put("report.datasets", ["our own data"]), "report.datasets: our own data; allowed: ids"),
    "a file for a dataset": (
        put("report.datasets", ["/data/train.tsv"]),
        "report.datasets: /data/train.tsv; allowed: ids",
    ),
    "no title": (put("report.title", " "), "report.title: .*; allowed: "),
    "nothing to prune": (
        put("prune.head_sparsity", 0, "prune.ffn_sparsity", 0),
        "prune.head_sparsity: 0, .*without a target; expected: one above 0",
    ),
    "heads that round to none": (
        put("prune.head_sparsity", 0.1),
        "prune.head_sparsity: 0.1, .*; allowed: 0, or above 0.125",
    ),
    "neurons that round to none": (
        put("prune.ffn_sparsity", 0.2),
        "prune.ffn_sparsity: 0.2, .*; allowed: 0, or above 0.25",
    ),
    "layers that round to none": (
        put("prune.layer_sparsity", 0.2),
        "prune.layer_sparsity: 0.2, .*; allowed: 0, or above 0.25",
    ),
    "neurons that round to none in another stage": (
        put("quantize.pruning", {"ffn_sparsity": 0.2}),
        "quantize.ffn_sparsity: 0.2, .* none of 32 neurons",
    ),
    "a budget that is met": (
        put("prune.head_sparsity", 0, "prune.ffn_sparsity", 0, "prune.target_parameters", 10**9),
        "prune.target_parameters: 1000000000; allowed: 1.* to below 2",
    ),
    "a budget that nothing meets": (
        put("prune.head_sparsity", 0, "prune.ffn_sparsity", 0, "prune.target_parameters", 100),
        "prune.target_parameters: 100; allowed: 1.* to below 2",
    ),
    "a vocabulary of no token": (
        lambda recipe: recipe["stages"].insert(5, {"stage": "prune_vocabulary", "min_count": 10**6}),
        "prune_vocabulary.min_count: 1000000, which no token of the texts reaches; allowed: fewer",
    ),
    "no step for a schedule": (
        put("prune.schedule", "cubic", "prune.max_steps", 1),
        "prune.schedule: cubic, and 0 of 1 steps lie between .*; allowed: more steps, or one_shot",
    ),
    "no step of epochs for a schedule": (
        put("prune.schedule", "cubic", "prune.max_steps", -1, "prune.num_train_epochs", 0.1),
        "prune.schedule: cubic, and 0 of 1 steps lie between .*; allowed: more steps, or one_shot",
    ),
    "no stage": (only(), "stages: none"),
    "unknown stage": (put("export.stage", "ship"), "stages.5.stage: ship; allowed: finetune, "),
    "distil last": (only("quantize", "distill"), "stages: distill in place 2; allowed: before quantize"),
    "nothing to export": (only("finetune", "export"), "stages: export needs a student; expected before it: distill"),
    "nothing to measure": (only("distill", "evaluate"), "stages: evaluate needs graphs; expected before it: export"),
    "quantize too early": (
        only("distill", "quantize", "task_distill"),
        "stages: task_distill in place 3; allowed: before quantize",
    ),
    "unknown key of pruning": (put("quantize.pruning", {"heads": 1}), "quantize.pruning.heads: 1; allowed: head_sp"),
    "too much pruning": (
        put("quantize.pruning", {"ffn_sparsity": 1}),
        "quantize.pruning.ffn_sparsity: 1.0; allowed: 0 t",
    ),
    "units that go at the end of INT4": (
        put("quantize.weights", "int4", "quantize.pruning", {"ffn_sparsity": 0.5, "schedule": "cubic"}),
        "quantize.schedule: cubic beside weights: int4, .*; allowed: one_shot",
    ),
    "finetune last": (only("distill", "finetune"), "stages: finetune in place 2; allowed: before distill"),
    "twice": (only("distill", "distill"), "stages: distill twice; expected: a name of its own"),
    "no raw text": (drop("raw_text"), "raw_text: missing; expected: files"),
    "no folder": (put("teacher.model", "no such teacher"), "teacher.model: .*no such teacher"),
    "no family": (put("teacher.model", "gpt2"), "teacher.model: .*gpt2. is not supported; allowed: bert"),
    "no layers to prune": (
        put("teacher.model", "albert", "prune.layer_sparsity", 0.5),
        "prune.layer_sparsity: above 0 for model type 'albert'",
    ),
    "a slow schedule": (put("prune.schedule", "slow"), "prune.schedule: .slow.; allowed: "),
    "no time to prune": (
        put("prune.max_steps", 0, "prune.schedule", "cubic"),
        "prune.max_steps: 0 with schedule cubic",
    ),
    "more rounds than steps": (
        put("prune.saliency", "magnitude", "prune.schedule", "iterative", "prune.max_steps", 8),
        "prune.rounds: 10; allowed: at most the 3 steps",
    ),
    "labels of another": (only("task_distill"), "task: label 'card_problem', which the model does not"),
    "negative seed": (put("seed", -1), "seed: -1; allowed: greater than or equal to 0"),
    "no steps": (put("distill.max_steps", 0), "distill.max_steps: 0; allowed: 1 or more, or -1"),
    "a share above 1": (put("prune.warmup_ratio", 2), "prune.warmup_ratio: 2; allowed: less than or equal to 1"),
    "not a number": (put("distill.learning_rate", float("nan")), "distill.learning_rate: NaN; allowed: "),
    "endless": (put("distill.num_train_epochs", float("inf")), "distill.num_train_epochs: Infinity; allowed: "),
    "no temperature": (put("prune.temperature", float("nan")), "prune.temperature: nan; allowed: above 0"),
    "nothing to compare": (put("export.fidelity_texts", 0), "export.fidelity_texts: 0; allowed: "),
    "no files": (put("raw_text.files", []), "raw_text.files: .*; allowed: "),
    "too long": (put("task.max_length", 100), "task.max_length: 100; allowed: 3 to 66"),
    "no depth": (put("student.num_hidden_layers", 0), "student.num_hidden_layers: 0; allowed: 1 to 3"),
    "too many threads": (put("threads", 10**6), "threads: 1000000; allowed: less than or equal to 1024"),
    "a file for a folder": (put("output_dir", "recipe.yaml"), "output_dir: recipe.yaml, which is a file"),
    "a home that only a shell knows": (put("output_dir", "~/run"), "output_dir: ~/run, where ~ is a character"),
    "no name that a system takes": (put("output_dir", "run" * 100), "output_dir: 'run.*, which is no name; allowed: "),
    "a NUL in a name": (put("output_dir", "a\0b"), "output_dir: 'a.x00b', which is no name; allowed: "),
    "a table's name that no system takes": (put("task.test_file", "a" * 300 + ".tsv"), "task.test_file: .*too long"),
    "no name for a folder": (put("output_dir", ""), "output_dir: .*; allowed: "),
    "a number for a text": (put("task.train_file", "numbers.jsonl"), "task.train_file: 3 in column 'text', row 1 of "),
    "a missing text": (put("raw_text.files", ["nulls.jsonl"]), "raw_text.files: None in column 'text', row 2 of "),
    "a broken file": (put("raw_text.files", ["broken.jsonl"]), "raw_text.files: .*broken.jsonl, which can't be read"),
    "no weights": (put("teacher.model", "weightless"), "teacher.model: .*weightless' holds no model.safetensors"),
    "no tokenizer": (put("teacher.model", "bare"), "teacher.model: .*bare.* tokenizer.*; expected: tokenizer.json"),
    "no configuration": (put("teacher.model", "broken"), "teacher.model: .*broken: its configuration can't be"),
    "unknown metric": (put("task.metric", "bleu"), "task.metric: bleu; allowed: accuracy, f1"),
    "a metric of tags": (
        put("task.metric", "seqeval", "task.type", "text_classification"),
        "task.metric: seqeval, which is of tags; allowed: accuracy, f1",
    ),
    "a label of a metric": (
        put("task.metric", {"name": "f1", "pos_label": "no_label"}),
        "task.metric.pos_label: no_label; allowed: ",
    ),
    "a module of a metric": (
        put("task.metric", "my/module.py"),
        "my/module.py, whose code would run here",
    ),
    "a missing module": (
        put("task.metric", {"name": "my/module.py", "trust_remote_code": True}),
        "my/module.py, which is no file; allowed: an existing one, or a Hub id",
    ),
    "no scores": (put("task.metric", "pearsonr"), "task.train_file: 'card_problem' in .*; allowed: a number"),
    "validation": (put("task.validation_share", 1.0), "task.validation_share: 1.0; allowed: above 0 and below 1"),
}


@pytest.fixture
def no_weights(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line_and_exit_code_2_and_touches_nothing(case, place, capsys, no_weights, monkeypatch):
    if case == "more rounds than steps":  # of Neural Compressor's schedule
        pytest.importorskip("neural_compressor")
    change, message = WRONG[case]
    (place / "empty.tsv").touch()
    (place / "numbers.jsonl").write_text('{"text": 3, "label": "a"}\n')
    (place / "nulls.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    (place / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (place / "header.tsv").write_text("text\tlabel\n")
    for name in ("gpt2", "albert", "bare", "broken"):
        shutil.copytree(place / "teacher", place / name)
    (place / "gpt2/config.json").write_text(GPT2Config(n_positions=66).to_json_string())
    (place / "bare/tokenizer.json").unlink()
    (place / "bare/vocab.txt").unlink(missing_ok=True)
    (place / "broken/config.json").write_text("[1]")
    (place / "weightless").mkdir()
    (place / "weightless/config.json").write_text("{}")
    tiny("albert").save_pretrained(place / "albert")
    (place / "run").mkdir()
    (place / "run/precious").write_text("kept")
    monkeypatch.chdir(place)
    recipe = write_recipe(place, change)
    assert main(["run", str(recipe)]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert re.match(f"edgemin: .*{message}", lines[0]), lines[0]
    assert "Traceback" not in captured.err
    assert [path.name for path in (place / "run").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "allowed: a mapping"),
        ("a: [", "not YAML"),
        ("", "allowed: a mapping"),
        ("name: 2020-01-01", "JSON"),
    ],
)
def test_what_is_no_recipe(tmp_path, text, message):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_overrides_reach_the_recipe_and_its_stages(place):
    path = write_recipe(place)
    overrides = ["seed=7", "task.max_length=48", "distill.learning_rate=6e-4", "distill.relations=[qq, vv]"]
    recipe, settings = load_recipe(path, [*overrides, "student.hidden_size=16", "name=another"])
    distill = recipe.stages[1]
    assert isinstance(distill, Distill)
    assert (recipe.seed, recipe.task.max_length, recipe.student.hidden_size, recipe.name) == (7, 48, 16, "another")
    assert (distill.learning_rate, distill.relations) == (6e-4, ("qq", "vv"))
    assert settings["stages"][1]["learning_rate"] == 6e-4
    for wrong, message in (
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("name.first=x", "no settings"),
        ("prune_more.max_steps=3", "prune_more: .*; allowed: name, .*, finetune, distill, "),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(path, [wrong])
    with pytest.raises(RecipeError, match=r"distill\.max_step: 3; allowed: .*max_steps"):
        load_recipe(path, ["distill.max_step=3"])


FETCHED = {"clinc150-mix", "embedding", "glue", "modernbert-small", "nli", "squad", "wnut17"}
"""Recipes whose data is no part of the repository, or is made first; they say how it comes."""


def test_every_recipe_of_the_repository_is_valid():
    recipes = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        recipe, _ = load_recipe(path)
        if recipe.task is not None and path.stem not in FETCHED:
            recipe.task.check(path.parent)


def test_neural_compressor_is_asked_for_by_name_where_it_is_missing(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "neural_compressor", None)
    recipe = write_recipe(place, put("prune.saliency", "magnitude"))
    assert main(["run", str(recipe)]) == 2
    error = capsys.readouterr().err
    assert "prune.saliency: magnitude without Neural Compressor; allowed: " in error
    assert len(error.splitlines()) == 1


def test_names_of_overrides_are_checked_before_weights_are_loaded(place, capsys):
    def error(*changes):
        status = main(["run", str(write_recipe(place, put(*changes))), "--dry-run"])
        return (status, capsys.readouterr().err)

    assert error("quantize.overrides", {"*.layer.0.attention": "int4", "classifier": "fp32"})[0] == 0
    status, message = error("quantize.overrides", {"bert.encoder.layer.7": "int4"})
    assert status == 2
    assert "quantize.overrides: bert.encoder.layer.7, which matches no " in message
    assert len(message.splitlines()) == 1
    status, message = error("quantize.overrides", {"classifier": "int3"})
    assert (status, "quantize.overrides.classifier" in message) == (2, True)
    gradually = {"head_sparsity": 0.5, "schedule": "cubic"}
    tables = error("quantize.overrides", {"*.word_embeddings": "int4"}, "quantize.pruning", gradually)
    assert tables[0] == 0, tables
    assert "beside weights: int4" in error("quantize.overrides", {"*.query": "int4"}, "quantize.pruning", gradually)[1]


def test_tables_of_all_kinds_are_read_as_they_are(tmp_path):
    from edgemin_hf.data.tables import read_table

    rows = [('say "hi', "NA"), ("it's", "null"), ("1", "2")]
    write_tsv(tmp_path / "a.tsv", rows)
    table = read_table(tmp_path / "a.tsv")
    assert table["text"] == ['say "hi', "it's", "1"]
    assert table["label"] == ["NA", "null", "2"]
    table.to_json(tmp_path / "b.jsonl")
    table.to_parquet(tmp_path / "c.parquet")
    table.to_csv(tmp_path / "d.csv")
    for name in ("b.jsonl", "c.parquet", "d.csv"):
        assert read_table(tmp_path / name)["label"] == ["NA", "null", "2"]
