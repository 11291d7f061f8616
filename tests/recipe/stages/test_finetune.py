import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from edgemin_hf.cli import main
from tests.helpers.models import tiny
from tests.helpers.recipes import only, write_recipe


@pytest.fixture
def encoder(place, tokenizer):
    """A sentence encoder instead of the classifier: its modules say that it is read by the mean of its tokens."""
    (place / "teacher").unlink()
    tiny().base_model.save_pretrained(place / "teacher")
    tokenizer.save_pretrained(place / "teacher")
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (place / "teacher/modules.json").write_text(json.dumps(modules))
    (place / "teacher/1_Pooling").mkdir()
    (place / "teacher/1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    return place


def run(place, *stages, **settings):
    def change(recipe):
        only(*stages)(recipe)
        recipe["stages"][0] = {**recipe["stages"][0], **settings}

    return main(["run", str(write_recipe(place, change))])


def record(place, stage):
    return json.loads((place / f"run/stages/{stage}.json").read_text())


def test_teacher_and_student_read_what_the_encoder_was_trained_for(encoder):
    assert run(encoder, "finetune", "distill", "task_distill", "prune", "quantize", "export", "evaluate") == 0
    for stage in ("teacher", "task_distill", "quantize"):
        config = AutoConfig.from_pretrained(encoder / "run" / stage)
        assert config.classifier_pooling == "mean", stage
        assert config.architectures == ["BertMeanPooledForSequenceClassification"]
        assert not any("pooler" in name for name in load_file(encoder / "run" / stage / "model.safetensors"))
    results = json.loads((encoder / "run/evaluate/results.json").read_text())
    assert results["student_pytorch_fp32"]["value"] > 0.5


@pytest.mark.parametrize("head", ["cls", "mean"])
def test_a_student_may_have_another_head(encoder, head):
    def change(recipe):
        only("finetune", "distill", "task_distill")(recipe)
        recipe["student"]["head"] = head

    assert main(["run", str(write_recipe(encoder, change))]) == 0
    config = AutoConfig.from_pretrained(encoder / "run/task_distill")
    assert config.architectures == [f"Bert{'MeanPooled' * (head == 'mean')}ForSequenceClassification"]


def test_a_new_head_is_fitted_first_and_one_that_knows_the_labels_is_kept(encoder):
    assert run(encoder, "finetune", max_steps=1) == 0
    assert "head fitted" in record(encoder, "finetune")["notes"][0]
    fitted = float(record(encoder, "finetune")["notes"][0].split()[-1])
    assert fitted > 0.7
    (encoder / "again").mkdir()
    trained = {"teacher": {"model": "run/teacher"}, "output_dir": str(encoder / "again")}

    def change(recipe):
        only("finetune")(recipe)
        recipe.update(trained)

    assert main(["run", str(write_recipe(encoder, change))]) == 0
    assert "notes" not in json.loads((encoder / "again/stages/finetune.json").read_text())


def test_without_fitting_the_head_begins_at_random(encoder):
    assert run(encoder, "finetune", max_steps=1, fit_head=False) == 0
    assert "notes" not in record(encoder, "finetune")


def test_the_best_epoch_is_kept(encoder):
    steps = {
        "max_steps": -1,
        "num_train_epochs": 4,
        "learning_rate": 1e-8,
        "head_learning_rate": 0.3,
        "best_model": True,
    }
    assert run(encoder, "finetune", **steps) == 0
    told = [json.loads(line) for line in (encoder / "run/log.jsonl").read_text().splitlines()]
    seen = [one["eval_accuracy"] for one in told if "eval_accuracy" in one and one["epoch"] >= 1]
    assert len(seen) >= 4
    assert record(encoder, "finetune")["after"] == pytest.approx(max(seen), abs=1e-4)
    assert min(seen) < max(seen)


def test_a_students_head_is_fitted_before_it_first_learns_the_task(encoder):
    def change(recipe):
        only("finetune", "task_distill")(recipe)
        recipe["stages"].append({"stage": "task_distill", "name": "again", "max_steps": 1})

    assert main(["run", str(write_recipe(encoder, change))]) == 0
    assert "head fitted" in record(encoder, "task_distill")["notes"][0]
    assert "notes" not in record(encoder, "again")


def test_without_steps_the_head_alone_is_fitted(encoder):
    assert run(encoder, "finetune", max_steps=0) == 0
    made, before = (
        load_file(encoder / "run/teacher/model.safetensors"),
        load_file(encoder / "teacher/model.safetensors"),
    )
    encoders = {name.removeprefix("bert."): tensor for name, tensor in made.items() if name.startswith("bert.")}
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoders.items())
    told = record(encoder, "finetune")
    assert (told["examples"], told["after"] > 0.7) == (0, True)
    # So is one that knows labels of as many names.
    shutil.rmtree(encoder / "teacher")
    shutil.move(encoder / "run/teacher", encoder / "teacher")
    shutil.rmtree(encoder / "run")
    assert run(encoder, "finetune", max_steps=0) == 0
    assert "head fitted" in record(encoder, "finetune")["notes"][0]


def test_neither_steps_nor_a_fitted_head_is_refused(encoder, capsys):
    assert run(encoder, "finetune", max_steps=0, fit_head=False) == 2
    assert "finetune.max_steps: 0 with fit_head: false; allowed: 1 or more" in capsys.readouterr().err
