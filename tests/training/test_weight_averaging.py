import json

import pytest
import torch
from transformers import TrainerCallback

from edgemin_hf import TaskDistillationConfig, WeightAveraging
from edgemin_hf.cli import main
from edgemin_hf.recipe import checkpoints
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.models import tiny
from tests.helpers.recipes import finetuning, record
from tests.helpers.recipes import weights as weights_of
from tests.helpers.training import assert_same, dataset, make, weights

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)


class Steps(TrainerCallback):
    """Keeps the weights of each step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.seen.append({name: tensor.double().clone() for name, tensor in model.state_dict().items()})

    def mean(self):
        return {name: torch.stack([seen[name] for seen in self.seen]).mean(0).float() for name in self.seen[0]}


def trained(folder, tokenizer, *callbacks, resume=None, **arguments):
    model = tiny(seed=5)
    model.get_input_embeddings().requires_grad_(False)
    arguments = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2} | arguments
    trainer = make(folder, tokenizer, model, config=LABELS_ALONE, eval_data=dataset(rows=24), **arguments)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return weights(trainer)


def test_a_training_ends_with_the_mean_of_its_steps(tmp_path, tokenizer):
    steps = Steps()
    last = trained(tmp_path / "usual", tokenizer, steps)
    averaged = trained(tmp_path / "averaged", tokenizer, WeightAveraging())
    assert_same(averaged, steps.mean(), rtol=1e-6, atol=1e-6)
    assert max((averaged[name] - last[name]).abs().max() for name in last) > 0.005
    table = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(averaged[table], tiny(seed=5).state_dict()[table])


def test_a_killed_training_ends_where_it_would_have(tmp_path, tokenizer):
    whole = trained(tmp_path, tokenizer, WeightAveraging())
    for step in (2, 4):  # after the last one nothing is left to train
        checkpoint = str(tmp_path / f"checkpoint-{step}")
        assert_same(trained(tmp_path, tokenizer, WeightAveraging(), resume=checkpoint), whole)


def test_the_best_model_is_no_mean(tmp_path, tokenizer):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}
    with pytest.raises(ValueError, match="load_best_model_at_end: True beside WeightAveraging; allowed: False"):
        trained(tmp_path, tokenizer, WeightAveraging(), **best)


def test_a_killed_recipe_ends_with_the_same_mean(place, monkeypatch, capsys):
    settings = {"max_steps": 4, "learning_rate": 1e-2}
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    monkeypatch.setattr(checkpoints, "_MOST_SHARE", 1e9)
    step = DistillationTrainer.training_step

    def killed(trainer, *arguments, **named):
        if trainer.state.global_step == 2:
            raise KeyboardInterrupt
        return step(trainer, *arguments, **named)

    for output, averaged in (("usual", False), ("whole", True), ("resumed", True)):
        recipe = finetuning(place, output, average_weights=averaged, **settings)
        if output == "resumed":
            with monkeypatch.context() as patched:
                patched.setattr(DistillationTrainer, "training_step", killed)
                assert main(["run", recipe]) == 130
            capsys.readouterr()
        assert main(["run", recipe]) == 0
    assert "resumed at step 2 of 4" in capsys.readouterr().out
    assert weights_of(place, "resumed") == weights_of(place, "whole") != weights_of(place, "usual")
    usual, whole = (record(place, output) for output in ("usual", "whole"))
    assert "average_weights" not in usual["settings"], "a run of before this setting would be made anew"
    assert whole["settings"]["average_weights"] is True


@pytest.mark.parametrize("other", [{"fit_head": False}, {"max_steps": 0}, {"best_model": True}])
def test_what_has_no_mean_is_refused(place, capsys, other):
    assert main(["run", finetuning(place, "run", average_weights=True, **other)]) == 2
    [(name, value)] = other.items()
    assert f"finetune.average_weights: true with {name}: {json.dumps(value)}; allowed: false" in capsys.readouterr().err


def test_shards_are_refused(place, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["run", finetuning(place, "run", average_weights=True)]) == 2
    assert "average_weights: true under FSDP" in capsys.readouterr().err
