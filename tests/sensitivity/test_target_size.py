import json
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from edgemin_hf.cli import main
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.integer import integer_copy
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.recipe.search.precisions import precisions_for_size
from edgemin_hf.recipe.stages.quantize import Pruning, Quantize
from edgemin_hf.sensitivity.quantization import ModuleSensitivity, quantization_sensitivity
from edgemin_hf.sensitivity.target_size import meet_size
from tests.helpers.models import batch, tiny
from tests.helpers.recipes import put, write_recipe


def rows(*modules):
    """Rows of modules, each (loss in INT8, loss in INT4, bytes in INT8, bytes in INT4 or None)."""
    found = []
    for number, (loss8, loss4, size8, size4) in enumerate(modules):
        for precision, loss, size in (("int8", loss8, size8), ("int4", loss4, size4)):
            if size is not None:
                row = ModuleSensitivity(f"module.{number}", "linear", precision, loss, size, {}, torch.zeros(0))
                found.append(row)
    return found


def total(modules, precisions, what):
    return sum(getattr(row, what) for row in modules if precisions[row.name] == row.precision)


def test_what_fits_stays_int8_and_what_never_fits_is_all_int4():
    modules = rows(
        (0.1, 0.2, 3_000_000, 2_000_000), (0.1, 0.9, 5_000_000, 3_000_000), (0, 0, 100, 200), (0, 0, 7, None)
    )
    assert set(meet_size(modules, 9_000_000, 9).values()) == {"int8"}
    assert set(meet_size(modules, 9_000_000, 6.0).values()) == {"int8", "int4"}
    lowest = {"module.0": "int4", "module.1": "int4", "module.2": "int8", "module.3": "int8"}
    assert meet_size(modules, 9_000_000, 6.0) == meet_size(modules, 9_000_000, 5.9) == lowest
    assert meet_size(modules, 9_000_000, 8.0)["module.0"] == "int4"


def test_it_is_the_least_loss_a_byte_and_what_was_not_needed_goes_back():
    # The first step saves too little, the second enough for both.
    modules = rows((0, 0.1, 2000, 1000), (0, 1.1, 20_000, 10_000))
    assert meet_size(modules, 30_000, 0.0200) == {"module.0": "int8", "module.1": "int4"}
    assert meet_size(modules, 30_000, 0.0190) == {"module.0": "int4", "module.1": "int4"}
    assert meet_size(modules, 30_000, 0.0290) == {"module.0": "int4", "module.1": "int8"}


@pytest.mark.parametrize("seed", range(5))
def test_against_every_choice_there_is(seed):
    generator = np.random.default_rng(seed)
    modules = rows(*((loss, loss * 3, int(size), int(size * 0.6)) for loss, size in generator.random((8, 2)) * 1e6))
    whole = total(modules, dict.fromkeys({row.name for row in modules}, "int8"), "size_bytes")
    names = sorted({row.name for row in modules})
    every = [dict(zip(names, choice, strict=True)) for choice in product(("int8", "int4"), repeat=len(names))]
    for share in (0.65, 0.8, 0.95):
        target = share * whole
        chosen = meet_size(modules, whole, target / 1e6)
        assert meet_size(modules[::-1], whole, target / 1e6) == chosen
        assert total(modules, chosen, "size_bytes") <= target
        allowed = [total(modules, one, "loss") for one in every if total(modules, one, "size_bytes") <= target]
        assert min(allowed) <= total(modules, chosen, "loss") <= 1.25 * min(allowed)


WIDE = {"hidden_size": 128, "intermediate_size": 512, "vocab_size": 4000}


FAMILIES = [
    ("bert", WIDE),
    ("electra", WIDE | {"embedding_size": 64}),
    ("albert", {}),
    ("deberta-v2", {}),
    ("modernbert", {}),
]


@pytest.mark.long
@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_a_real_graph_is_as_large_as_predicted_and_meets_the_target(family, changes, tmp_path):
    inputs = [batch()]
    config = QuantizationConfig(overrides={"classifier": "fp32"}, target_size_mb=1e3)
    found = quantization_sensitivity(tiny(family, **changes), inputs, inputs).modules
    modules = [row for row in found if row.name != "classifier"]
    precisions, int8 = precisions_for_size(tiny(family, **changes), config, modules, tmp_path)
    assert set(precisions.values()) == {"int8"}
    saved = sum(row.saved_bytes["int8"] for row in modules if row.precision == "int4")
    target = (int8 - 0.5 * saved) / 1e6
    with pytest.raises(ValueError, match=r"^target_size_mb: 0.01; allowed: ") as error:
        precisions_for_size(tiny(family, **changes), replace(config, target_size_mb=0.01), modules, tmp_path)
    least = float(re.search(r"allowed: ([0-9.]+) or more", str(error.value))[1])
    target = max(target, least + 0.0005)
    chosen, told = precisions_for_size(
        tiny(family, **changes), replace(config, target_size_mb=target), modules, tmp_path
    )
    assert list(tmp_path.iterdir()) == []
    # Other weights, and ranges that were calibrated: the graph is as large.
    model = tiny(family, seed=1, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    prepare_qat(model, QuantizationConfig(overrides={"classifier": "fp32", **chosen}))
    calibrate(model, inputs, lambda one: model(**one))
    write_graph(integer_copy(model), tmp_path / "onnx" / "graph.onnx")
    real = (tmp_path / "onnx" / "graph.onnx").stat().st_size
    assert real <= told <= 1e6 * target
    assert told == pytest.approx(real, rel=0.01)
    if changes:  # where the weights are more than the structure, theirs is nearly all that counts
        assert set(chosen.values()) == {"int8", "int4"}
        lowered = [row for row in modules if row.precision == chosen[row.name] == "int4"]
        assert int8 - sum(row.saved_bytes["int8"] for row in lowered) == pytest.approx(real, rel=0.02)


def recipe_with(place, target):
    def change(recipe):
        put("quantize.target_size_mb", target, "quantize.overrides", {"*.layer.0.attention": "int8"})(recipe)
        wanted = ("finetune", "quantize", "prune_vocabulary", "export")
        stages = [*recipe["stages"], {"stage": "prune_vocabulary"}]
        recipe["stages"] = [stage for name in wanted for stage in stages if stage["stage"] == name]

    return str(write_recipe(place, change))


@pytest.mark.long
def test_a_recipe_meets_its_target_and_keeps_its_choice(place, monkeypatch, capsys):
    # Weights and scales alone are too large: found before a model is loaded. With the graph around them: later.
    assert main(["run", recipe_with(place, 0.01)]) == 2
    early = capsys.readouterr().err.strip().splitlines()[-1]
    assert early.startswith("edgemin: quantize.target_size_mb: 0.01; allowed: above 0.")
    just_above = float(early.partition("above ")[2].split(",")[0]) + 0.01
    assert main(["run", recipe_with(place, just_above)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"edgemin: quantize.target_size_mb: {just_above:g}; allowed: 0.")
    target = float(error.partition("allowed: ")[2].split()[0]) + 0.006
    recipe = recipe_with(place, target)

    def stop(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgemin_hf.recipe.stages.quantize.train", stop)
        assert main(["run", recipe, "--overwrite"]) == 130
        (kept,) = (place / "run" / "work" / "quantize").glob("*/precisions.json")
        first = json.loads(kept.read_text())["precisions"]
        kept.unlink()
        assert main(["run", recipe]) == 130
        assert json.loads(kept.read_text())["precisions"] == first

    def refuse(*_args):
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr("edgemin_hf.recipe.search.precisions.quantization_sensitivity", refuse)
        assert main(["run", recipe]) == 0
    record = json.loads((place / "run" / "stages" / "quantize.json").read_text())
    assert record["precisions"] == first
    assert set(first.values()) == {"int8", "int4"}
    assert not any(".layer.0.attention." in name for name in first)
    assert f"{list(first.values()).count('int4')} of {len(first)} modules in INT4" in record["notes"][0]
    graphs = [*(place / "run" / "export" / "student" / "onnx").iterdir()]
    (quantized,) = (graph for graph in graphs if graph.name != "model.onnx")
    assert quantized.stat().st_size <= 1e6 * target


def test_settings_that_contradict_a_target_are_refused():
    with pytest.raises(ValueError, match=r"^target_size_mb: 0; allowed: above 0"):
        QuantizationConfig(target_size_mb=0)
    for name, value in (("weights", "int4"), ("provider", "inc")):
        with pytest.raises(ValueError, match=f"^target_size_mb: beside {name} {value}; allowed: {name} "):
            QuantizationConfig(target_size_mb=5, **{name: value})
    with pytest.raises(ValueError, match=r"pruning: beside target_size_mb; allowed: "):
        Quantize(target_size_mb=5, pruning=Pruning(ffn_sparsity=0.5))
    with pytest.raises(ValueError, match=r"^target_size_mb: 5; allowed: in a recipe; here overrides"):
        prepare_qat(tiny(), QuantizationConfig(target_size_mb=5))


def test_gradual_pruning_after_a_target_is_refused_before_the_run(place, capsys):
    def change(recipe):
        put("quantize.target_size_mb", 5)(recipe)
        put("prune.schedule", "cubic")(recipe)
        stages = {stage["stage"]: stage for stage in recipe["stages"]}
        recipe["stages"] = [stages["finetune"], stages["quantize"], stages["prune"]]

    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert "schedule: cubic beside target_size_mb: 5" in capsys.readouterr().err
