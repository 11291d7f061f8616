import os
import re
from itertools import pairwise

import pytest
from safetensors.torch import load_file
from transformers import PreTrainedModel, Trainer

from edgemin_hf.cli import main
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.estimate import Estimator
from edgemin_hf.recipe.yaml_file import load_recipe
from tests.helpers.recipes import only, put, write_recipe

STAGE = "finetune.training_arguments"
WRONG = {
    "no such field": ({"lr_schedule": "linear"}, "lr_schedule: linear; allowed: .*lr_scheduler_type"),
    "the recipe's seed": ({"seed": 3}, "seed: 3; expected: "),
    "the recipe's precision": ({"bf16": True}, "bf16: True; expected: "),
    "a cast of the weights": ({"bf16_full_eval": True}, "bf16_full_eval: True; expected: the stage's or"),
    "the stage's own": ({"learning_rate": 1e-3}, "learning_rate: 0.001; expected: "),
    "the best model": ({"load_best_model_at_end": True}, "load_best_model_at_end: True; expected: the stage's or"),
    "the folder": ({"output_dir": "elsewhere"}, "output_dir: elsewhere; expected: "),
    "a secret": ({"hub_token": "hf_x"}, "hub_token: hf_x; expected: "),
    "pickles": ({"save_safetensors": False}, "save_safetensors: False; expected: "),
    "text for a number": ({"max_grad_norm": "much"}, "max_grad_norm: much; expected: a valid number"),
    "a number as text": ({"max_grad_norm": "1.0"}, "max_grad_norm: 1.0; expected: a valid number"),
    "a number for a truth": ({"dataloader_drop_last": 1}, "dataloader_drop_last: 1; expected: a valid boolean"),
    "a fraction": ({"dataloader_num_workers": 1.5}, "dataloader_num_workers: 1.5; expected: a valid integer"),
    "a list": ({"lr_scheduler_kwargs": [1]}, r"lr_scheduler_kwargs: \[1\]; expected: an object"),
    "no such schedule": ({"lr_scheduler_type": "flat"}, "lr_scheduler_type: flat; allowed: 'linear', 'cosine'"),
    "steps of other rows": ({"auto_find_batch_size": True}, "auto_find_batch_size: True; allowed: false"),
    "no such optimizer": ({"optim": "adam"}, "optim: adam; allowed: 'adamw_torch'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_one_line_before_a_model_is_loaded(case, place, capsys, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    arguments, message = WRONG[case]
    assert main(["run", str(write_recipe(place, put(STAGE, arguments)))]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(f"{STAGE}.{message}", error), error


UNREADABLE = {
    "compiled": ("distill", "{torch_compile: true}", "torch_compile.*: inductor; allowed: no"),
    "reentrant": (
        "distill",
        "{gradient_checkpointing: true, gradient_checkpointing_kwargs: {use_reentrant: true}}",
        "gradient_checkpointing_kwargs: .*; allowed: use_reentrant false",
    ),
    "do not go together": ("finetune", "{logging_strategy: steps, logging_steps: 0}", "logging strategy"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_arguments_that_the_trainer_would_refuse_are_refused_by_a_dry_run(case, place, capsys, monkeypatch):
    stage, arguments, message = UNREADABLE[case]
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    change = ["--set", f"{stage}.training_arguments={arguments}", "--dry-run"]
    assert main(["run", str(write_recipe(place)), *change]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(rf"{stage}\.training_arguments: {message}", error), error
    assert "ACCELERATE_DYNAMO_BACKEND" not in os.environ
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"


def test_a_method_that_reads_no_layers_may_be_compiled(place, capsys):
    change = ["--set", "task_distill.training_arguments={torch_compile: true}", "--dry-run"]
    assert main(["run", str(write_recipe(place)), *change]) == 0, capsys.readouterr().err


def test_processes_share_the_rows_and_so_the_minutes(place, monkeypatch):
    recipe, settings = load_recipe(write_recipe(place), ["finetune.max_steps=-1"])
    context, stage = Context(recipe, settings, place, place / "run"), recipe.stages[0]
    alone, work = context.estimator, stage.work(context)
    together = Estimator(recipe, place, context.bf16, processes=4)
    monkeypatch.setattr(Estimator, "speed", 1e6)  # so slow that the optimizer's time is nothing
    one, four = (estimator.training(stage, work) for estimator in (alone, together))
    assert one.examples == four.examples
    assert four.minutes == pytest.approx(one.minutes / 4, rel=0.01)


def test_a_checkpoint_that_no_training_can_go_on_from_is_one_line_before_the_first_pass(place, capsys, monkeypatch):
    monkeypatch.setattr("edgemin_hf.recipe.train.last_checkpoint", lambda work: str(place / "checkpoint-2"))
    monkeypatch.setattr(Trainer, "evaluate", lambda *_, **__: pytest.fail("rows were run"))
    assert main(["run", str(write_recipe(place, only("finetune")))]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"edgemin: finetune: resume_from_checkpoint: .*checkpoint-2, which holds no trainer_state", error)


@pytest.mark.long
def test_arguments_reach_the_trainer_of_their_stage_alone(place):
    wanted = {"lr_scheduler_type": "cosine", "max_grad_norm": 0.5, "logging_steps": 7, "adam_beta1": 0.8}
    wanted |= {
        "per_device_eval_batch_size": 3,
        "lr_scheduler_kwargs": {"num_cycles": 0.25},
        "dataloader_drop_last": True,
    }

    path = write_recipe(place, put(STAGE, wanted))
    recipe, settings = load_recipe(path, ["finetune.training_arguments.optim=adamw_torch"])
    context = Context(recipe, settings, place, place / "run")
    finetune, distill = recipe.stages[0], recipe.stages[2]
    assert finetune.settings()["training_arguments"] == {**wanted, "optim": "adamw_torch"}
    found = finetune.trainer(context, place / "work").args
    assert {name: getattr(found, name) for name in wanted} == wanted
    assert (found.seed, found.learning_rate, found.max_steps) == (recipe.seed, finetune.learning_rate, 4)
    assert distill.training_arguments == {}
    trainer = finetune.trainer(context, place / "work")
    trainer.create_optimizer_and_scheduler(10)
    assert trainer.optimizer.defaults["betas"] == (0.8, 0.999)


@pytest.mark.long
def test_another_argument_is_another_training(place, capsys):
    path = write_recipe(place, only("finetune"))
    assert main(["run", str(path)]) == 0
    assert main(["run", str(path), "--set", "finetune.training_arguments={max_grad_norm: 0.5}"]) == 2
    assert "made with finetune.training_arguments.max_grad_norm: none -> 0.5;" in capsys.readouterr().err


@pytest.mark.long
def test_frozen_embeddings_stay_as_they_are_and_the_next_stage_trains_them(place):
    path = write_recipe(place, put("distill.freeze_embeddings", True, "quantize.freeze_embeddings", True))
    recipe, settings = load_recipe(path, ["student.head=cls"])
    context = Context(recipe, settings, place, place / "run")
    stages = [
        stage for stage in recipe.stages if stage.name in ("finetune", "distill", "task_distill", "prune", "quantize")
    ]
    tables = {}
    for stage in stages:
        stage.run(context, place / "run" / stage.folder, place / "work" / stage.name)
        state = load_file(place / "run" / stage.folder / "model.safetensors")
        tables[stage.name] = state["bert.embeddings.word_embeddings.weight"]
    same = {later: tables[earlier].equal(tables[later]) for earlier, later in pairwise(tables)}
    assert same == {"distill": True, "task_distill": False, "prune": False, "quantize": True}
