"""Tags, answers and vectors by Neural Compressor, at INT4 and with a cut vocabulary: what no other test has them do."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModel

from edgemin_hf.cli import main
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.utils.edgemin_config import EdgeminConfig
from tests.helpers.models import tiny
from tests.helpers.questions import question_recipe, write_questions
from tests.helpers.tasks import read_json
from tests.tasks.test_sentence_embedding import write_recipe as vector_recipe
from tests.tasks.test_token_classification import drawn, recipe_of, write

pytestmark = pytest.mark.long

TASKS = {"token_classification": "seqeval", "question_answering": "squad_v2", "sentence_embedding": "spearmanr"}
BY_INC = {"saliency": "snip_momentum", "schedule": "iterative", "rounds": 2}
PREPARED = [{"stage": "finetune", "max_steps": 20, "learning_rate": 1e-3}, {"stage": "task_distill", "max_steps": 4}]
MEASURED = [{"stage": "export", "fidelity_texts": 8}, {"stage": "evaluate"}]
VARIANTS = {
    "inc": [
        {"stage": "prune", "ffn_sparsity": 0.5, **BY_INC, "max_steps": 8},
        {"stage": "quantize", "provider": "inc", "max_steps": 2},
    ],
    "int4": [
        {"stage": "prune", "head_sparsity": 0.5, "max_steps": 0},
        {"stage": "prune_vocabulary", "min_count": 60},
        {"stage": "quantize", "weights": "int4", "max_steps": 0, "reconstruction": {"steps": 2, "examples": 16}},
    ],
}
# Each way with rows of which several make an example, and with vectors; each task in one way at least.
PAIRS = [("token_classification", "inc"), ("question_answering", "int4")]
PAIRS += [("sentence_embedding", variant) for variant in VARIANTS]


def recipe_for(task, root, stages, tokenizer):
    """Write a recipe of a task, its data and its teacher; return the recipe's path."""
    if task == "sentence_embedding":
        return Path(vector_recipe(root, tokenizer, lambda recipe: recipe.update(stages=stages[1:])))
    tiny(head=AutoModel).save_pretrained(root / "teacher")
    tokenizer.save_pretrained(root / "teacher")
    if task == "question_answering":
        write_questions(root, unanswerable=0.3)
        return question_recipe(root, stages=stages, metric="squad_v2")
    for name, count, seed in (("train", 60, 0), ("validation", 30, 10)):
        write(root / f"{name}.jsonl", drawn(count, seed))
    write(root / "test.conll", drawn(40, 20))
    (root / "raw.txt").write_text("where is my card")
    return recipe_of(root, "run", stages)


@pytest.mark.parametrize(("task", "variant"), PAIRS)
def test_other_ways_to_prune_and_quantise(task, variant, tmp_path, tokenizer):
    if variant == "inc":
        pytest.importorskip("neural_compressor")
    stages = [*PREPARED, *VARIANTS[variant], *MEASURED]
    assert main(["run", str(recipe_for(task, tmp_path, stages, tokenizer))]) == 0
    run = tmp_path / "run"
    for stage in ("prune", "quantize"):
        record = read_json(run / f"stages/{stage}.json")
        assert record["metric"] == TASKS[task]
        assert np.isfinite([record["before"], record["after"]]).all()
    settings = EdgeminConfig.from_pretrained(run / "quantize").quantization
    assert (settings["provider"], settings["weights"]) == {"inc": ("inc", "int8"), "int4": ("native", "int4")}[variant]
    manifest = read_manifest(run / "export/student")
    entries = {entry.precision: entry for entry in manifest.entries}
    smallest = entries["int4" if variant == "int4" else "int8"]
    assert manifest.task == task
    assert smallest.fidelity.error <= smallest.fidelity.limit
    results = read_json(run / "evaluate/results.json")
    measured = results[f"student_onnxruntime_{smallest.precision}"]
    # What is deployed gives what was trained, as far as the texts of a tiny model can tell it.
    assert measured["metric"] == TASKS[task]
    assert measured["value"] == pytest.approx(results["student_pytorch_fp32"]["value"], abs=0.15)
    if variant == "int4":
        cut = read_json(run / "stages/prune_vocabulary.json")["vocabulary"]
        assert cut["after"] < cut["before"]
        assert read_json(run / "stages/quantize.json")["reconstruction"]


def test_sensitivity_of_vectors(tmp_path, tokenizer, capsys):
    assert main(["run", str(recipe_for("sentence_embedding", tmp_path, PREPARED, tokenizer))]) == 0
    asked = ["sensitivity", str(tmp_path / "run/task_distill"), "--output", str(tmp_path / "out")]
    asked += ["--sparsities", "0.5", "--saliency-examples", "16", "--measure", "pruning", "quantization"]
    assert main(asked) == 2
    assert capsys.readouterr().err.endswith("to score units by; allowed: random, or measure: quantization\n")
    assert main([*asked, "--saliency", "random"]) == 0
    found = read_json(tmp_path / "out/sensitivity.json")
    assert (found["base"]["metric"], found["base"]["n"]) == ("spearmanr", 32)
    assert found["base"]["value"] == pytest.approx(
        read_json(tmp_path / "run/stages/task_distill.json")["after"], abs=0.05
    )
    assert found["quantization_loss"] == "squared_difference"
    assert {row["kind"] for row in found["measurements"]} == {"heads", "neurons", "layers"}
    assert found["quantization"][0]["loss"] > 0
