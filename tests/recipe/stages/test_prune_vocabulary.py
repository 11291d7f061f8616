import json

import onnx
import pytest
from transformers import AutoConfig, AutoTokenizer

from edgemin_hf.cli import main
from edgemin_hf.modeling.pruned_shape import pruned_shape
from tests.helpers.recipes import only, write_recipe


@pytest.mark.long
def test_a_domain_edition_of_a_pruned_student(place, capsys):
    """A second recipe takes up teacher and pruned student of a first, as recipes/quickstart-domain.yaml does."""
    assert main(["run", str(write_recipe(place, only("finetune", "task_distill", "prune")))]) == 0

    def domain(recipe):
        stages = {stage["stage"]: stage for stage in recipe["stages"]}
        recipe["output_dir"] = str(place / "domain")
        recipe["teacher"]["model"], recipe["student"] = "run/teacher", {"checkpoint": "run/prune"}
        recipe["stages"] = [
            {**stages["quantize"], "embeddings": "int4"},
            {"stage": "prune_vocabulary", "min_count": 40},
            stages["export"],
            stages["evaluate"],
        ]

    recipe = write_recipe(place, domain, "domain.yaml")
    assert main(["run", str(recipe), "--dry-run"]) == 0
    assert main(["run", str(recipe)]) == 0
    before, after = (AutoConfig.from_pretrained(place / folder) for folder in ("run/prune", "domain/prune_vocabulary"))
    assert after.vocab_size < before.vocab_size
    assert pruned_shape(after) == pruned_shape(before)
    results = json.loads((place / "domain/evaluate/results.json").read_text())
    assert results["student_onnxruntime_int8"]["value"] > 0.4


SMALLEST = {"num_hidden_layers": 2, "model_type": "electra", "embedding_size": 16, "max_position_embeddings": 24}
SMALLEST |= {"head": "mean"}


def smallest(place, target, **settings):
    def change(recipe):
        stages = {stage["stage"]: stage for stage in recipe["stages"]}
        stages["prune_vocabulary"] = {"stage": "prune_vocabulary", "min_count": 40}
        stages["quantize"] = {**stages["quantize"], "embeddings": "int4", "target_size_mb": target, **settings}
        names = ("finetune", "task_distill", "prune_vocabulary", "quantize", "export", "evaluate")
        recipe["student"], recipe["stages"] = SMALLEST, [stages[name] for name in names]

    return str(write_recipe(place, change, "smallest.yaml"))


@pytest.mark.long
def test_a_cut_vocabulary_is_quantised_to_a_target(place):
    target = 0.07
    assert main(["run", smallest(place, target)]) == 0
    run = place / "run"
    cut, quantized = (
        json.loads((run / f"stages/{name}.json").read_text()) for name in ("prune_vocabulary", "quantize")
    )

    # The vocabulary, and what that means for the texts.
    told = cut["vocabulary"]
    assert told["before"] == 71 > told["after"]
    assert [one["texts"] for one in told["coverage"]] == ["validation texts", "raw text"]
    assert all(0 < one["split"] < 1 and one["unknown"] == 0 for one in told["coverage"])
    assert f"{told['coverage'][0]['split']:.2%} of the pieces became smaller" in cut["notes"][1]

    # What learned after the cut read its tokens.
    student = run / "export/student"
    config, tokenizer = AutoConfig.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    assert (config.vocab_size, config.embedding_size, config.max_position_embeddings) == (told["after"], 16, 24)
    assert (len(tokenizer), tokenizer.model_max_length) == (told["after"], 24)
    assert AutoTokenizer.from_pretrained(run / "quantize").get_vocab() == tokenizer.get_vocab()
    assert quantized["before"] is not None

    # Tables in INT4 are no part of the choice, and the file meets the target closely.
    assert {"int4", "int8"} >= set(quantized["precisions"].values())
    assert any("embeddings_project" in name for name in quantized["precisions"])
    assert not any("word_embeddings" in name for name in quantized["precisions"])
    (graph,) = (file for file in (student / "onnx").iterdir() if file.name != "model.onnx")
    assert 0.9 * 1e6 * target <= graph.stat().st_size <= 1e6 * target
    weights = {value.name: value for value in onnx.load(graph).graph.initializer}
    table = next(value for name, value in weights.items() if "word_embeddings.weight" in name and "scale" not in name)
    assert (table.data_type, list(table.dims)) == (onnx.TensorProto.UINT8, [told["after"], 8])
    results = json.loads((run / "evaluate/results.json").read_text())
    assert any(name.startswith("student_") for name in results)


def test_what_can_not_follow_a_cut_vocabulary_is_refused(place, capsys):
    assert main(["run", smallest(place, 5, also=[{"method": "pkd"}]), "--dry-run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("edgemin: quantize.also: after the vocabulary was cut")


def test_texts_are_no_longer_than_the_students_positions(place, capsys):
    path = smallest(place, 5)
    assert main(["run", path, "--set", "task.max_length=25", "--dry-run"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error == "edgemin: task.max_length: 25; allowed: 3 to 24, the student's positions"
    assert main(["run", path, "--dry-run"]) == 0
    assert "2x32" in capsys.readouterr().out
