import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from edgemin_hf.cli import main
from edgemin_hf.quantization.integer import quantized_weights
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.stages import quantize as training
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.models import LABELS, tiny
from tests.helpers.recipes import write_recipe

RECONSTRUCTION = {"modules": 2, "examples": 48, "steps": 20, "learning_rate": 3e-4, "range_learning_rate": 3e-3}


def write(place, *after, **settings):
    """A recipe that quantises a copy of the teacher, and nothing else."""

    def change(recipe):
        recipe["stages"] = [{"stage": "quantize", "max_steps": 0, "calibration_examples": 64, **settings}, *after]
        recipe["teacher"]["model"] = "classifier"
        recipe["student"] = {}

    labels = dict(enumerate(LABELS))
    model = tiny(num_labels=2, id2label=labels, label2id={label: index for index, label in labels.items()})
    model.save_pretrained(place / "classifier")
    AutoTokenizer.from_pretrained(place / "teacher").save_pretrained(place / "classifier")
    return write_recipe(place, change)


def run(place, *after, **settings):
    path = write(place, *after, **settings)
    assert main(["run", str(path)]) == 0
    return path


def record(place, stage="quantize"):
    return json.loads((place / f"run/stages/{stage}.json").read_text())


def saved(place):
    return load_file(place / "run/quantize/model.safetensors")


def is_weight(name):
    return name.endswith(("weight", "bias"))


@pytest.mark.long
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_without_steps_the_student_is_calibrated_and_nothing_is_trained(place, weights):
    path = run(place, {"stage": "export", "fidelity_texts": 8}, weights=weights)
    told, before = record(place), load_file(place / "classifier/model.safetensors")
    assert (told["examples"], told["before"]) == (0, told["after"])
    assert all(torch.equal(value, before[name]) for name, value in saved(place).items() if is_weight(name))
    lows = [value for name, value in saved(place).items() if name.endswith("input_low")]
    assert len(lows) == (20 if weights == "int8" else 0)
    assert all(low < 0 for low in lows)
    recipe, settings = load_recipe(path)
    student = Context(recipe, settings, place, place / "run").trained(recipe.stages[0])
    assert quantized_weights(student) == weights
    graph = {"int8": "model_quantized.onnx", "int4": "model_q4.onnx"}[weights]
    assert (place / "run/export/student/onnx" / graph).is_file()


@pytest.mark.long
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_modules_are_reconstructed_and_their_errors_told(place, weights, capsys):
    run(place, {"stage": "export", "fidelity_texts": 8}, weights=weights, reconstruction=RECONSTRUCTION)
    told, before = record(place), load_file(place / "classifier/model.safetensors")
    assert [module["name"] for module in told["reconstruction"]] == ["layer 0", "layers 1-2", "head"]
    assert all(module["after"] <= module["before"] for module in told["reconstruction"])
    assert told["reconstruction"][1]["after"] < 0.95 * told["reconstruction"][1]["before"]
    assert re.fullmatch(r"errors of the modules: layer 0 [\d.e-]+ -> [\d.e-]+, layers 1-2 .*", told["notes"][0])
    assert told["notes"][0] in capsys.readouterr().out
    assert told["examples"] == 0
    weight = "bert.encoder.layer.1.output.dense.weight"
    assert not torch.equal(saved(place)[weight], before[weight])


@pytest.mark.long
def test_the_recipes_seed_draws_rows_and_batches(place):
    found = []
    for seed in (0, 0, 1):
        assert main(["run", str(write(place, reconstruction=RECONSTRUCTION)), "--set", f"seed={seed}", "--set",
                     f"output_dir={place}/run{len(found)}"]) == 0  # fmt: skip
        found.append(load_file(place / f"run{len(found)}/quantize/model.safetensors"))
    first, again, other = found
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


class KilledError(BaseException):
    """The process ended here."""


@pytest.mark.long
def test_a_killed_stage_reconstructs_again_and_a_resumed_training_does_not(place, monkeypatch):
    settings = {"max_steps": 8, "save_steps": 4, "reconstruction": RECONSTRUCTION}
    run(place, **settings)
    whole, told = saved(place), record(place)
    path, elsewhere = write(place, **settings), ["--set", f"output_dir={place}/killed/run"]
    calls, real = [], training.reconstruct

    def counted(*args):
        calls.append("begun")
        found = real(*args)
        if len(calls) == 1:
            raise KilledError
        return found

    def killed_behind_it(self, **arguments):
        self.args.max_steps = 8
        train(self, **arguments)
        raise KilledError

    train = DistillationTrainer.train
    monkeypatch.setattr(training, "reconstruct", counted)
    with pytest.raises(KilledError):  # in the reconstruction
        main(["run", str(path), *elsewhere])
    monkeypatch.setattr(DistillationTrainer, "train", killed_behind_it)
    with pytest.raises(KilledError):  # after the last step, before the stage's folder is written
        main(["run", str(path), *elsewhere])
    monkeypatch.setattr(DistillationTrainer, "train", train)
    (last,) = (place / "killed/run/work").glob("*/*/checkpoint-8")
    (last / "complete").unlink()
    assert main(["run", str(path), *elsewhere]) == 0
    assert len(calls) == 2
    resumed = saved(place / "killed")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    again = record(place / "killed")
    assert (again["reconstruction"], again["before"]) == (told["reconstruction"], told["before"])


WRONG = {
    "a setting": ({"reconstruction": {"steps": 0}}, r"quantize\.reconstruction\.steps: 0; allowed: 1 or more"),
    "a name": (
        {"reconstruction": {"epochs": 1}},
        r"quantize\.reconstruction\.epochs: 1; allowed: modules, .*, teacher_forcing$",
    ),
    "a seed of its own": ({"reconstruction": {"seed": 1}}, r"quantize\.reconstruction\.seed: 1; allowed: modules"),
    "pruning": (
        {"reconstruction": {}, "pruning": {"head_sparsity": 0.5}},
        r"quantize\.reconstruction: beside pruning, .*; allowed: ",
    ),
    "frozen tables": (
        {"reconstruction": {}, "freeze_embeddings": True},
        r"quantize\.freeze_embeddings: true beside reconstruction, .*; allowed: false",
    ),
    "Neural Compressor": (
        {"reconstruction": {}, "provider": "inc"},
        r"quantize\.reconstruction: beside provider inc, .*; allowed: native",
    ),
    "a slow schedule": (
        {"pruning": {"head_sparsity": 0.5, "schedule": "cubic"}},
        r"quantize\.max_steps: 0 with pruning\.schedule cubic; allowed: 1 or more",
    ),
    "steps": ({"max_steps": -2}, r"quantize\.max_steps: -2; allowed: 0 or more, or -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_impossible_settings_are_one_line(place, case, capsys):
    settings, message = WRONG[case]
    assert main(["run", str(write(place, **settings))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line), line


@pytest.mark.long
def test_the_estimate_counts_the_reconstruction_and_the_ranking_of_modules(place, capsys):
    def work(**settings):
        assert main(["run", str(write(place, **settings)), "--dry-run"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("quantize")]
        return float(line.split()[6])

    assert work() == 0 < work(reconstruction={"steps": 10}) < work(reconstruction={"steps": 1000})
    assert 0 < work(target_size_mb=50, calibration_examples=64) < work(target_size_mb=50, calibration_examples=1024)


@pytest.mark.long
def test_neural_compressors_quantisation_goes_all_the_way(place):
    pytest.importorskip("neural_compressor")
    from optimum.intel.neural_compressor import INCConfig
    from optimum.onnxruntime import ORTConfig

    prune = {
        "stage": "prune",
        "ffn_sparsity": 0.5,
        "saliency": "magnitude",
        "max_steps": 8,
        "rounds": 2,
        "schedule": "cubic",
    }

    def change(recipe):
        stages = {stage["stage"]: stage for stage in recipe["stages"]}
        quantize = {"stage": "quantize", "provider": "inc", "max_steps": 4, "calibration_examples": 32}
        names = ("export", "evaluate", "benchmark", "report")
        recipe["stages"] = [stages["finetune"], prune, quantize, *(stages[name] for name in names)]

    assert main(["run", str(write_recipe(place, change))]) == 0
    for folder in (place / "run/export/student", place / "run/artefact"):
        config = INCConfig.from_pretrained(folder)
        assert config.quantization["is_static"] is True
        assert config.pruning == {"approach": "magnitude", "pattern": "channelx1", "sparsity": 0.5}
        assert ORTConfig.from_pretrained(folder).quantization.is_static
    for stage, part in (("prune", "pruning"), ("quantize", "quantization")):
        alone = INCConfig.from_pretrained(place / "run" / stage).to_dict()
        assert [name for name in ("pruning", "quantization") if alone[name]] == [part]
    rows = json.loads((place / "run/artefact/benchmark.json").read_text())["rows"]
    assert [row["precision"] for row in rows if row["model"] == "student"] == ["fp32", "fp32", "int8"]
    card = (place / "run/artefact/README.md").read_text()
    assert "quantization-aware-training" in card
    assert "provider: inc" in card
    assert (place / "run/artefact/report.html").is_file()


@pytest.mark.long
def test_neural_compressor_quantises_without_training(place, monkeypatch, capsys):
    pytest.importorskip("neural_compressor")
    from optimum.intel.neural_compressor import INCConfig

    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    names = ("evaluate", "benchmark", "report")
    run(place, {"stage": "export", "fidelity_texts": 8}, *({"stage": name} for name in names), provider="inc")
    told, before = record(place), load_file(place / "classifier/model.safetensors")
    assert (told["examples"], told["before"]) == (0, told["after"])
    assert all(torch.equal(saved(place)[name], value) for name, value in before.items())
    scales = {name: value for name, value in saved(place).items() if name.endswith("weight_scale")}
    assert len(scales) == 20
    for name, scale in scales.items():
        largest = before[name.replace("weight_scale", "weight")].abs().amax(dim=1, keepdim=True)
        torch.testing.assert_close(scale, largest / 64, rtol=1e-5, atol=0)
    for folder in (place / "run/quantize", place / "run/export/student", place / "run/artefact"):
        assert INCConfig.from_pretrained(folder).quantization == {"is_static": True, "dataset_num_samples": 64}
    assert not list((place / "elsewhere").iterdir())
