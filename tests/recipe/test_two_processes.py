"""Whole runs of the tasks whose rows are no examples, in two processes and in one: the same weights and metrics."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from tests.helpers.masked_words import word_recipe, write_words
from tests.helpers.models import tiny
from tests.helpers.questions import question_recipe, write_questions
from tests.helpers.tasks import read_json
from tests.tasks.test_sentence_embedding import write_recipe as vector_recipe
from tests.tasks.test_token_classification import drawn, recipe_of, write

pytestmark = pytest.mark.long

TASKS = ("token_classification", "question_answering", "sentence_embedding", "masked_lm")
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Adam would turn the sign of a gradient's rounding into whole steps.
TRAINED = {"max_steps": 9, "per_device_train_batch_size": 4, "learning_rate": 0.05, "warmup_ratio": 0.0}
TRAINED |= {"training_arguments": {"optim": "sgd", "lr_scheduler_type": "constant", "per_device_eval_batch_size": 7}}
STAGES = [
    {"stage": "finetune", **TRAINED},
    {"stage": "task_distill", **TRAINED, "also": [{"method": "minilmv2", "relation_heads": 8}]},
    {"stage": "prune", **TRAINED, "head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency_examples": 48},
    {"stage": "export", "fidelity_texts": 8},
    {"stage": "evaluate"},
]


def stages(processes, *left_out):
    """As many rows of like length a step, whoever takes them."""
    trained = {"gradient_accumulation_steps": 2 // processes}
    kept = [stage for stage in STAGES if stage["stage"] not in left_out]
    return [{**stage, **trained} if "max_steps" in stage else stage for stage in kept]


def write_recipes(root, processes, tokenizer):
    """Write a recipe of each task, without dropout, in a folder of its own; return their paths."""
    for task in TASKS:
        (root / task).mkdir(parents=True)
    tagged, asked, vectors, words = (root / task for task in TASKS)
    for place in (tagged, asked):
        tiny(head=AutoModel, **STILL).save_pretrained(place / "teacher")
        tokenizer.save_pretrained(place / "teacher")
    for name, count, seed in (("train", 61, 0), ("validation", 29, 10)):
        write(tagged / f"{name}.jsonl", drawn(count, seed))
    write(tagged / "test.conll", drawn(40, 20))
    (tagged / "raw.txt").write_text("where is my card")
    write_questions(asked, unanswerable=0.3)

    def change(recipe):
        recipe["stages"] = stages(processes, "finetune")

    averaged = stages(processes)
    averaged[0] = {**averaged[0], "average_weights": True}
    recipe = vector_recipe(vectors, tokenizer, change)
    config = vectors / "teacher/config.json"
    config.write_text(json.dumps(read_json(config) | STILL))
    return [
        recipe_of(tagged, "run", averaged),
        question_recipe(asked, stages=stages(processes), metric="squad_v2"),
        Path(recipe),
        word_recipe(write_words(words, tokenizer, **STILL), stages=stages(processes), mask_probability=0.3),
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer, forks):
    root = tmp_path_factory.mktemp("processes")
    for name, processes in (("one", 1), ("two", 2)):
        recipes = write_recipes(root / name, processes, tokenizer)
        forks.run("tests.helpers.runs", *recipes, processes=processes)
    return root


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_and_measure_a_task_as_one_does(folders, task):
    one, two = (folders / name / task / "run" for name in ("one", "two"))
    records = {file.stem: read_json(file) for file in (two / "stages").glob("*.json")}
    assert {record["machine"]["processes"] for record in records.values()} == {2}
    trained = [stage for stage in ("finetune", "task_distill", "prune") if stage in records]
    for stage in trained:
        folder = "teacher" if stage == "finetune" else stage
        ours, theirs = (load_file(run / folder / "model.safetensors") for run in (two, one))
        assert ours.keys() == theirs.keys()
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5, msg=f"{stage}: {name}")
        ours, theirs = records[stage], read_json(one / f"stages/{stage}.json")
        assert ours["examples"] == theirs["examples"]
        for measured in ("before", "after"):
            assert ours[measured] == pytest.approx(theirs[measured], abs=1e-6), (stage, measured)
    ours, theirs = (read_json(run / "evaluate/results.json") for run in (two, one))
    assert ours.keys() == theirs.keys()
    for name, found in theirs.items():
        assert ours[name]["value"] == pytest.approx(found["value"], abs=1e-6), name
    before = load_file(one / "task_distill/model.safetensors")
    after = load_file(one / "prune/model.safetensors")
    moved = [(after[name] - weight).abs().max() for name, weight in before.items() if after[name].shape == weight.shape]
    assert max(moved) > 1e-3
