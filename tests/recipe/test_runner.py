import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from filelock import FileLock
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from edgemin_hf import load_pruned
from edgemin_hf.cli import main
from edgemin_hf.data.tables import read_table
from edgemin_hf.modeling.pruned_shape import plain_releases, pruned_shape
from edgemin_hf.recipe import Context, load_recipe
from edgemin_hf.tasks.metrics.analysis import Analysis
from edgemin_hf.tasks.run_rows import rows_of_run
from edgemin_hf.training.trainer import DistillationTrainer
from edgemin_hf.utils.compat import RELEASE
from tests.helpers.hub_server import HubServer, with_hub
from tests.helpers.optimum import ORTModelForSequenceClassification
from tests.helpers.recipes import RECIPE, only, put, write_recipe

FILES = {
    "README.md", "benchmark.json", "config.json", "edgemin.json", "environment.json", "model.safetensors",
    "onnx/model.onnx", "onnx/model_quantized.onnx", "ort_config.json", "recipe.yaml", "report.html", "tokenizer.json",
}  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "added_tokens.json")
ROWS = [
    ("teacher", "pytorch", "fp32"), ("teacher", "onnxruntime", "fp32"), ("teacher", "onnxruntime", "int8"),
    ("student", "pytorch", "fp32"), ("student", "onnxruntime", "fp32"), ("student", "onnxruntime", "int8"),
]  # fmt: skip


GATE = {"retention": 0.1, "max_size_mb": 100}
SLOW_EXPORT = """
import time
from datetime import timedelta
import torch
from torch.distributed import distributed_c10d
distributed_c10d.default_pg_timeout = timedelta(seconds=4)
from edgemin_hf.cli import main
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.stages.export import Export
def slow(self, context, folder, work):
    time.sleep(8)
    return Outcome()
Export.write = slow
raise SystemExit(main(["run", "{recipe}"]))
"""


def only_stages(*names):
    return [dict(stage) for name in names for stage in RECIPE["stages"] if stage["stage"] == name]


@pytest.fixture(scope="module")
def finished(workplace, tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    for path in workplace.iterdir():
        (root / path.name).symlink_to(path)

    def longer(recipe):
        put("distill.max_steps", 20)(recipe)
        put("task_distill.max_steps", 40)(recipe)
        put("report.gate", GATE)(recipe)
        put("evaluate.slices", ["length_bucket", "label"], "evaluate.robustness", True)(recipe)

    recipe = write_recipe(root, longer)
    assert main(["run", str(recipe)]) == 0
    return root


def files_below(folder):
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.long
def test_the_artefact_names_no_place_of_this_machine(finished):
    recipe = yaml.safe_load((finished / "run/artefact/recipe.yaml").read_text())
    assert recipe["output_dir"] == "run"
    places = [str(finished).encode(), str(Path.home()).encode() + b"/", str(Path(sys.prefix)).encode()]
    for file in (finished / "run/artefact").rglob("*"):
        if file.is_file():
            assert not [place for place in places if place in file.read_bytes()], file


@pytest.mark.long
def test_the_artefact_is_complete(finished):
    run = finished / "run"
    assert set(files_below(run / "artefact")) >= FILES
    assert {path.name for path in run.iterdir()} >= {"teacher", "artefact", "stages"}
    assert not list(run.rglob("*.partial"))
    assert not list(run.rglob("*.bin"))
    assert "base_model" not in (run / "artefact/README.md").read_text()  # the teacher is a folder
    plain = RELEASE in plain_releases(AutoConfig.from_pretrained(run / "artefact"))  # 5 has no words for lost heads
    student = (AutoModelForSequenceClassification.from_pretrained if plain else load_pruned)(run / "artefact")
    assert student.config.num_hidden_layers == 2
    assert student.config.intermediate_size == 32
    assert student.config.id2label == {0: "card_problem", 1: "transfer"}


@pytest.mark.long
def test_a_stage_pushes_the_artefact_and_is_then_done(finished, monkeypatch, caplog):
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    recipe["stages"].append({"stage": "push", "repo_id": "me/tiny", "private": True, "tags": ["v1"]})
    (finished / "pushed.yaml").write_text(yaml.safe_dump(recipe))
    caplog.set_level("INFO")
    with HubServer("hf_right") as hub:
        with_hub(monkeypatch, hub, "hf_right")
        assert main(["run", str(finished / "pushed.yaml")]) == 0
        repo = hub.repos["me/tiny"]
        url = f"{hub.endpoint}/me/tiny/commit/{repo.sha}"
        assert main(["run", str(finished / "pushed.yaml")]) == 0
    assert f"push: to me/tiny (private), as it lies in {finished}/run/artefact now:" in caplog.text
    assert re.search(r"onnx/model_quantized.onnx +[0-9,]+ bytes\n", caplog.text)
    assert f"pushed: {url}" in caplog.text
    assert json.loads((finished / "run/push/push.json").read_text()) == {"repo_id": "me/tiny", "url": url}
    assert (repo.private, repo.tags, len(hub.commits)) == (True, {"v1": repo.sha}, 1)
    card = repo.files["README.md"].decode()
    assert 'load("me/tiny")' in card
    assert "your-name" not in card
    gate = {bound["name"]: bound for bound in json.loads(repo.files["edgemin.json"])["gate"]}
    assert {name: bound["bound"] for name, bound in gate.items()} == GATE
    size = (finished / "run/artefact/onnx/model_quantized.onnx").stat().st_size
    assert gate["max_size_mb"]["measured"] == size / 1e6


@pytest.mark.long
def test_benchmark_json_has_a_row_a_triple(finished):
    benchmark = json.loads((finished / "run/artefact/benchmark.json").read_text())
    rows = benchmark["rows"]
    assert [(row["model"], row["runtime"], row["precision"]) for row in rows] == ROWS
    for row in rows:
        assert row["metric"] == "accuracy"
        assert row["n"] == 40
        assert 0 <= row["ci95"][0] <= row["value"] <= row["ci95"][1] <= 1
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p90"] <= row["latency_ms"]["p99"]
        assert (row["batch_size"], row["threads"]) == (1, 1)
    by_row = dict(zip(ROWS, rows, strict=True))
    for row, told in by_row.items():
        whole = row[:2] == ("student", "onnxruntime")
        assert ("whole_call_ms" in told) == whole
        assert ("optimum_call_ms" in told) == (whole and find_spec("optimum") is not None)
        assert not whole or told["whole_call_ms"]["p50"] > 0
    assert "Whole calls, text in and answer out" in (finished / "run/artefact/README.md").read_text()
    teacher = finished / "run/teacher"
    assert by_row["teacher", "pytorch", "fp32"]["size_bytes"] == (teacher / "model.safetensors").stat().st_size
    int8 = finished / "run/artefact/onnx/model_quantized.onnx"
    assert by_row["student", "onnxruntime", "int8"]["size_bytes"] == int8.stat().st_size
    loaded = AutoModelForSequenceClassification.from_pretrained(teacher)
    assert by_row["teacher", "pytorch", "fp32"]["parameters"] == loaded.num_parameters()
    assert benchmark["environment"]["packages"]["onnxruntime"]


@pytest.mark.long
def test_the_student_is_told_beside_its_teacher(finished):
    run = finished / "run"
    told = Analysis.from_dict(json.loads((run / "artefact/analysis.json").read_text()))
    predictions = load_file(run / "evaluate/predictions.safetensors")
    ours, theirs = (
        predictions[f"{model}_onnxruntime_{name}"] for model, name in (("student", "int8"), ("teacher", "fp32"))
    )
    assert told.agreement.value == np.mean(ours == theirs)
    assert {one.name for one in told.classes} == {"card_problem", "transfer"}
    assert set(told.calibration) == {"teacher", "student"}
    assert told.calibration["student"].accuracy == pytest.approx(
        json.loads((run / "evaluate/results.json").read_text())["student_onnxruntime_int8"]["value"]
    )
    assert [one.by for one in told.slices] == ["length_bucket", "label"]
    assert all(sum(group.n for group in one.groups) == 40 for one in told.slices)
    names = ["as they are", "with typos", "in lower case", "in upper case"]
    assert [group.name for group in told.robustness] == names
    assert told.robustness[0].student == told.robustness[2].student  # the texts have no capitals
    page, card = ((run / "artefact" / name).read_text() for name in ("report.html", "README.md"))
    assert "<h2>Beside its teacher</h2>" in page
    assert "## Beside its teacher" in card
    assert "A process that only runs it loads it in" in card
    assert {path.stem for path in (run / "artefact/figures").iterdir()} >= {
        "latency_by_length", "reliability", "training",
    }  # fmt: skip
    curve = json.loads((run / "stages/task_distill.json").read_text())["curve"]
    assert (curve["validated"][0], curve["validated"][-1]) == (0, 40)


@pytest.mark.long
def test_accuracy_is_that_of_the_predictions(finished):
    run = finished / "run"
    predictions = load_file(run / "evaluate/predictions.safetensors")
    lines = (finished / "test.tsv").read_text().splitlines()[1:]
    labels = np.array([["card_problem", "transfer"].index(line.split("\t")[1]) for line in lines])
    measured = json.loads((run / "evaluate/results.json").read_text())
    for name, predicted in predictions.items():
        assert measured[name]["value"] == np.mean(predicted == labels)


@pytest.mark.long
def test_stages_say_what_they_did(finished, capsys):
    records = [json.loads(file.read_text()) for file in (finished / "run/stages").glob("*.json")]
    trained = {record["stage"]: record for record in records if record.get("metric")}
    assert set(trained) == {"finetune", "distill", "task_distill", "prune", "quantize"}
    assert trained["task_distill"]["examples"] == 8 * 144
    assert trained["distill"]["after"] < trained["distill"]["before"]
    assert trained["prune"]["before"] == pytest.approx(trained["task_distill"]["after"])  # the same student


@pytest.mark.long
def test_no_model_of_a_stage_stays_in_memory(place):
    def models():
        return sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects())

    def short(recipe):
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] in ("finetune", "task_distill")]

    gc.collect()
    before, recipe = models(), write_recipe(place, short)
    gc.disable()
    try:
        assert main(["run", str(recipe)]) == 0
        assert models() == before
    finally:
        gc.enable()


@pytest.mark.long
def test_what_is_done_is_not_done_again(finished, capsys):
    before = files_below(finished / "run")
    assert main(["run", str(finished / "recipe.yaml")]) == 0
    assert files_below(finished / "run") == before
    _, _, ending = capsys.readouterr().out.rstrip("\n").rpartition("\n\n")
    made, size, speed, quality, command = ending.splitlines()
    assert re.fullmatch(r"made      Edge model: 0\.0 million parameters in INT8, in \d+\.\d min of stages", made)
    assert re.fullmatch(r"size      0\.1 MB \(onnx/model_quantized\.onnx\), .* times smaller than the teacher", size)
    assert re.search(
        r"ms a whole call, .* ms a pass \(p50, batch 1, 1 thread\), .* times as fast as the teacher", speed
    )
    assert re.fullmatch(r"accuracy  .*% \[.*\] on the test set; the teacher .*% \[.*\]", quality)
    words = shlex.split(command)
    assert words[:4] == ["next", "edgemin", "predict", str(finished / "run/artefact")]
    assert main(words[2:]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in ("card_problem", "transfer")


@pytest.mark.long
def test_the_card_shows_no_row_of_the_data(finished):
    card = (finished / "run/artefact/README.md").read_text()
    rows = [line.split("\t")[0] for name in ("train", "test") for line in (finished / f"{name}.tsv").open()][1:]
    assert not [row for row in rows if len(row) > 15 and row in card]
    assert "The train to the coast was late" in card


@pytest.mark.long
def test_the_plan_foretells_the_sizes_of_the_artefact(finished, capsys):
    """Of an export to make anew; of so tiny a model the graphs' structure, which is guessed, is most of a graph."""
    assert (
        main(["run", str(finished / "recipe.yaml"), "--set", "export.fidelity_texts=8", "--overwrite", "--dry-run"])
        == 0
    )
    (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Artefact: ")]
    assert re.search(r"A guess: about [\d.e-]+ ms here \(one thread\) for a text of \d+ tokens in its INT8 graph", told)
    recipe, settings = load_recipe(finished / "recipe.yaml")
    context = Context(recipe, settings, finished, finished / "run")
    export = next(stage for stage in recipe.stages if stage.stage == "export")
    sizes = export.foretold(context).sizes
    more = replace(export, batch=1, length=16, openvino=True).foretold(context).sizes
    graph = sizes["onnx/model_quantized.onnx"]
    further = {"onnx/model_quantized_1x16.onnx": graph, "openvino/openvino_model.xml": graph}
    assert {name: size for name, size in more.items() if name not in sizes} == further
    artefact = finished / "run/artefact"
    assert sizes.keys() == {"model.safetensors", "onnx/model.onnx", "onnx/model_quantized.onnx", "tokenizer"}
    asked = replace(export, fused_attention=True, batch=1, length=16, openvino=True)
    assert asked.foretold(context).sizes.keys() - sizes.keys() == {
        "onnx/model_quantized_fused.onnx", "onnx/model_quantized_1x16.onnx", "openvino/openvino_model.xml",
    }  # fmt: skip
    weights = sum(4 * tensor.size for tensor in load_file(artefact / "model.safetensors").values())
    assert sizes["model.safetensors"] == pytest.approx(weights, rel=0.01)  # the biases of heads that go are not counted
    files = [artefact / name for name in TOKENIZER if (artefact / name).exists()]
    assert sizes["tokenizer"] == pytest.approx(sum(file.stat().st_size for file in files), rel=0.05)


@pytest.mark.long
def test_another_recipe_does_not_overwrite(finished, capsys):
    before = files_below(finished / "run")
    arguments = ["run", str(finished / "recipe.yaml"), "--set", "prune.head_sparsity=0.25"]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "made with prune.head_sparsity: 0.5 -> 0.25; allowed: " in error
    assert files_below(finished / "run") == before
    assert main([*arguments, "--overwrite", "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    plan = [line.split()[:3] for line in told]
    assert ["task_distill", "done", "2x32/4/64"] in plan
    assert ["prune", "to", "replace"] in plan
    assert ["report", "to", "replace"] in plan
    assert told.count("to replace: prune (prune.head_sparsity: 0.5 -> 0.25)") == 1


def test_dry_run_prints_the_plan_and_writes_nothing(place, capsys):
    recipe = write_recipe(place)
    assert main(["run", str(recipe), "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert [line.split()[0] for line in plan.splitlines()[1:10]] == [
        "finetune", "distill", "task_distill", "prune", "quantize", "export", "evaluate", "benchmark", "report",
    ]  # fmt: skip
    header, *rows = plan.splitlines()[:10]
    assert {row.index("to do") for row in rows} == {header.index("state")}
    assert re.search(r"About [\d.]+ min to go", plan)
    assert not (place / "run").exists()


def kill_at(running, run, pattern):
    """Kill a process without warning once a file of its run appears."""
    deadline = time.monotonic() + 600
    while not list(run.glob(pattern)):
        os.kill(running.pids[0], 0)  # fails if it ended before it could be killed
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(running.pids[0], signal.SIGKILL)
    assert running.wait().returncode == -signal.SIGKILL


@pytest.mark.long
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(workplace, tmp_path, forks):
    recipes = []
    for name in ("whole", "killed"):
        root = tmp_path / name
        root.mkdir()
        for path in workplace.iterdir():
            (root / path.name).symlink_to(path)

        def longer(recipe):
            recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in ("benchmark", "report")]
            for stage in recipe["stages"]:
                if "max_steps" in stage:
                    stage |= {"max_steps": 15, "save_steps": 5}
                if stage["stage"] == "prune":
                    stage |= {"schedule": "cubic", "end": 0.8}

        recipes.append(write_recipe(root, longer))
    whole, killed = (path.parent / "run" for path in recipes)
    forks.run("edgemin_hf", "run", recipes[0], parent=1)
    # A checkpoint half written, units half masked, a folder half filled; stages' own tests kill the other ones.
    for pattern in ("work/finetune/*/checkpoint-10", "work/prune/*/checkpoint-5/complete",
                    ".evaluate.partial/results.json"):  # fmt: skip
        kill_at(forks.start("edgemin_hf", "run", recipes[1]), killed, pattern)
    done = forks.run("edgemin_hf", "run", recipes[1])
    assert re.search("^finetune +done", done.stdout, re.MULTILINE)
    for file in ("teacher/model.safetensors", "distill/model.safetensors", "task_distill/model.safetensors",
                 "prune/model.safetensors", "quantize/model.safetensors", "evaluate/predictions.safetensors",
                 "export/student/onnx/model_quantized.onnx"):  # fmt: skip
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file
    assert not list(killed.rglob("*.partial"))


@pytest.mark.long
@pytest.mark.parametrize("order", ["after", "within", "alone"])
def test_pruning_after_quantisation_within_it_and_without_training(place, order):
    pruning = {"head_sparsity": 0.25, "ffn_sparsity": 0.5, "scope": "model", "saliency": "fisher"}

    def change(recipe):
        stages = {stage["stage"]: stage for stage in recipe["stages"]}
        if order == "within":
            stages["quantize"]["pruning"] = {**pruning, "schedule": "iterative"}
            del stages["prune"]
        else:
            again = {"max_steps": 0, "tune_masks": True} if order == "alone" else {"max_steps": 8}
            stages["prune"] = {"stage": "prune", **pruning, **again}
        chosen = ["finetune", "task_distill", "prune", "quantize", "export"]
        if order == "after":
            chosen[2:4] = ["quantize", "prune"]
        recipe["stages"] = [stages[name] for name in chosen if name in stages]

    recipe = write_recipe(place, change)
    assert main(["run", str(recipe)]) == 0
    student = load_pruned(place / "run/export/student")
    shape = pruned_shape(student.config)
    assert sum(map(len, shape.heads)) == 6
    assert sum(shape.neurons) == 64
    assert sum(int8_weights(place / "run/export/student/onnx/model_quantized.onnx")) < sum(
        int8_weights(place / "run/export/teacher/onnx/model_quantized.onnx")
    )


@pytest.mark.long
def test_a_smaller_vocabulary_is_the_students_alone(place):
    def change(recipe):
        recipe["stages"].insert(5, {"stage": "prune_vocabulary"})

    lines = [line for line in (place / "train.tsv").read_text().splitlines() if "please" not in line]
    (place / "train.tsv").unlink()
    (place / "train.tsv").write_text("\n".join(lines) + "\n")
    recipe = write_recipe(place, change)
    assert main(["run", str(recipe)]) == 0
    artefact = place / "run/artefact"
    student, teacher = (AutoConfig.from_pretrained(folder) for folder in (artefact, place / "run/teacher"))
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (artefact, place / "run/teacher")]
    assert student.vocab_size == len(tokenizers[0]) < teacher.vocab_size == len(tokenizers[1])
    texts = [line.split("\t")[0] for line in (place / "train.tsv").read_text().splitlines()[1:]]
    assert [tokenizers[0].tokenize(text) for text in texts] == [tokenizers[1].tokenize(text) for text in texts]
    # The graphs answer to the student's own ids: as in the report, so by Optimum.
    model = ORTModelForSequenceClassification.from_pretrained(
        artefact, subfolder="onnx", file_name="model_quantized.onnx"
    )
    texts = [line.split("\t")[0] for line in (place / "test.tsv").read_text().splitlines()[1:]]
    found = [int(model(**tokenizers[0](text, return_tensors="pt")).logits.argmax()) for text in texts]
    saved = load_file(place / "run/evaluate/predictions.safetensors")["student_onnxruntime_int8"]
    assert found == saved.tolist()
    record = json.loads((place / "run/stages/prune_vocabulary.json").read_text())
    assert record["notes"][0] == f"{teacher.vocab_size} tokens became {student.vocab_size}"
    assert main(["benchmark", str(artefact), "--teacher", str(place / "run/teacher"), "--rounds", "1"]) == 0


@pytest.mark.long
def test_an_int4_student_goes_all_the_way(place, capsys):
    def change(recipe):
        put("quantize.weights", "int4", "quantize.embeddings", "int4")(recipe)
        put("quantize.pruning", {"ffn_sparsity": 0.5})(recipe)
        left_out = ("distill", "task_distill", "prune")
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in left_out]

    assert main(["run", str(write_recipe(place, change))]) == 0
    artefact = place / "run/artefact"
    assert sorted(file.name for file in (artefact / "onnx").iterdir()) == ["model.onnx", "model_q4.onnx"]
    rows = json.loads((artefact / "benchmark.json").read_text())["rows"]
    last = rows[-1]
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "int8", "fp32", "fp32", "int4"]
    assert last["size_bytes"] == (artefact / "onnx/model_q4.onnx").stat().st_size
    assert last["parameters"] == pytest.approx(rows[-2]["parameters"], rel=0.01)
    assert "student int4" in (artefact / "figures/bytes.svg").read_text()
    note = json.loads((place / "run/stages/export.json").read_text())["notes"][0]
    assert note.startswith("INT4 graph differs from PyTorch by")
    assert main(["benchmark", str(artefact), "--rounds", "1"]) == 0
    assert "student  onnxruntime  int4" in capsys.readouterr().out


@pytest.mark.long
def test_a_mixed_student_that_loses_layers_goes_all_the_way(place):
    def change(recipe):
        overrides = {"bert.encoder.layer.0": "int4", "bert.encoder.layer.2": "fp32", "classifier": "fp32"}
        put("quantize.overrides", overrides, "quantize.reduce_range", False)(recipe)
        put("quantize.pruning", {"layer_sparsity": 0.34, "saliency_examples": 16})(recipe)
        put("student", {"num_hidden_layers": 3})(recipe)
        left_out = ("distill", "task_distill", "prune", "benchmark", "report")
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in left_out]

    assert main(["run", str(write_recipe(place, change))]) == 0
    graphs = place / "run/export/student/onnx"
    kept = json.loads((place / "run/quantize/config.json").read_text())["edgemin_layers"]
    assert len(kept) == 2
    graph = graphs / ("model_quantized.onnx" if 1 in kept else "model_q4.onnx")  # it alone is INT8
    assert sorted(file.name for file in graphs.iterdir()) == ["model.onnx", graph.name]
    int4 = sum(node.op_type == "MatMulNBits" for node in onnx.load(graph).graph.node)
    assert int4 == (6 if 0 in kept else 0)
    record = json.loads((place / "run/stages/quantize.json").read_text())
    assert record["settings"]["overrides"]["classifier"] == "fp32"


def int8_weights(graph):
    return [np.prod(tensor.dims) for tensor in onnx.load(graph).graph.initializer if tensor.data_type == 3]


def test_what_no_recipe_made_is_not_replaced(place, capsys):
    recipe = write_recipe(place)
    (place / "run/teacher").mkdir(parents=True)
    (place / "run/teacher/thesis.txt").write_text("mine")
    assert main(["run", str(recipe)]) == 2
    assert "whose teacher no run of a recipe made; allowed: " in capsys.readouterr().err
    assert (place / "run/teacher/thesis.txt").read_text() == "mine"
    assert main(["run", str(write_recipe(place, put("output_dir", str(place)))), "--overwrite"]) == 2
    assert "teacher, which lies in output_dir" in capsys.readouterr().err


def test_two_runs_in_one_folder(place, capsys):
    recipe = write_recipe(place)
    (place / "run").mkdir()
    with FileLock(place / "run/.lock"):
        assert main(["run", str(recipe)]) == 2
    assert "where another run is at work" in capsys.readouterr().err


@pytest.mark.long
def test_a_failure_is_one_line_and_the_folder_goes_on(place, capsys, monkeypatch):
    recipe = write_recipe(place, only("finetune"))
    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "evaluate", lambda self: [][0])
        assert main(["run", str(recipe)]) == 1
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if line.startswith("edgemin: ")]
    assert re.match(r"edgemin: finetune: IndexError: list index out of range \(traceback: .*/run/error.log\)", told[0])
    assert len(told) == 1
    assert "Traceback" not in "".join(lines)
    assert "list index out of range" in (place / "run/error.log").read_text()
    assert "in <lambda>" in (place / "run/error.log").read_text()
    assert not (place / "run/teacher").exists()
    assert main(["run", str(recipe)]) == 0
    assert not (place / "run/error.log").exists()


def test_a_traceback_is_shown_where_it_is_asked_for(place, capsys, monkeypatch):
    monkeypatch.setattr("edgemin_hf.recipe.runner.steps_of", lambda *_: [][0])
    assert main(["run", str(write_recipe(place)), "--traceback"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.splitlines()[-1].startswith("edgemin: IndexError: list index out of range (a fault of edgemin")
    assert main(["run", str(write_recipe(place))]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_without_rights_does_not_pass(place, capsys, monkeypatch):
    access = os.access
    (place / "run").mkdir()
    closed = {place, place / "run", place / "run/stages"}
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in closed and access(path, mode))
    assert main(["run", str(write_recipe(place)), "--dry-run"]) == 2
    assert re.search("edgemin: output_dir: .*/run, which can't be written to; allowed: ", capsys.readouterr().err)
    assert main(["run", str(write_recipe(place, put("output_dir", str(place / "new/run")))), "--dry-run"]) == 2
    assert re.search("output_dir: .*/new/run, which can't be made in .*; allowed: ", capsys.readouterr().err)
    (place / "run/stages").mkdir()
    closed -= {place, place / "run"}
    assert main(["run", str(write_recipe(place)), "--dry-run"]) == 2
    assert "run/stages, which can't be written to" in capsys.readouterr().err
    assert main(["benchmark", str(place), "--output", str(place / "run/stages/rows.json")]) == 2
    assert "run/stages, which can't be written to" in capsys.readouterr().err


@pytest.mark.long
def test_rows_stand_in_the_folder_of_a_run(place):
    recipe = write_recipe(place, only("finetune"))
    assert main(["run", str(recipe)]) == 0
    found = rows_of_run(place / "run/teacher")
    train, validation = read_table(found.train), read_table(found.validation)
    assert (len(train), len(validation)) == (144, 16)
    lines = (place / "train.tsv").read_text().splitlines()[1:]
    rows = [f"{row['text']}\t{row['label']}" for row in [*train, *validation]]
    assert sorted(rows) == sorted(lines)
    assert found.task["max_length"] == 24
    assert rows_of_run(place / "teacher") is None


@pytest.mark.long
def test_processes_wait_longer_than_the_default_timeout(place):
    """The first process's own work takes longer than the others would wait by themselves."""
    recipe = write_recipe(
        place, lambda r: r.update(stages=[*only_stages("finetune", "task_distill"), {"stage": "export"}])
    )
    script = place / "launched.py"
    script.write_text(SLOW_EXPORT.format(recipe=str(recipe)))
    several = ["--nproc_per_node", "2", "--master_port", "29613"]
    launcher = [sys.executable, "-m", "torch.distributed.run", *several, str(script)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(launcher, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((place / "run/stages/export.json").read_text())["finished"]


@pytest.mark.long
def test_benchmark_command(finished, capsys, tmp_path):
    artefact = str(finished / "run/artefact")
    output = tmp_path / "rows.json"
    arguments = ["benchmark", artefact, "--rounds", "2", "--threads", "1", "--output", str(output)]
    assert main([*arguments, "--teacher", str(finished / "run/teacher")]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["model"], row["runtime"], row["precision"]) for row in rows] == ROWS
    assert "int8" in capsys.readouterr().out
    for wrong, message in (
        (["benchmark", str(tmp_path)], "holds no edgemin.json"),
        ([*arguments[:3], "0"], "--rounds 0; allowed: 1 or more"),
        (["benchmark", artefact, "--texts", str(tmp_path / "no")], "which is no file"),
        (["push", str(tmp_path), "me/x"], "holds no edgemin.json"),
        (["push", artefact, "a/b/c"], "a/b/c"),
    ):
        assert main(wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["run"], ["benchmark"], ["sensitivity"], ["push"], ["pull"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    assert "usage: edgemin" in capsys.readouterr().out


@pytest.mark.long
def test_accelerate_launch(place):
    def short(recipe):
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in ("benchmark", "report")]

    recipe = write_recipe(place, short)
    several = ["--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *several, "-m", "edgemin_hf", "run", str(recipe)]
    done = subprocess.run(
        launcher, check=False, capture_output=True, text=True, env={**os.environ, "ACCELERATE_USE_CPU": "true"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("quantize: done") == 1
    assert (place / "run/evaluate/results.json").is_file()
    record = json.loads((place / "run/stages/task_distill.json").read_text())
    assert record["examples"] == 144 + 64
    assert record["inputs"] == {}
