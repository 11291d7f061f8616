import json
import re

import pytest
from transformers import EarlyStoppingCallback

from edgemin_hf.cli import main
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.recipes import finetuning, put, record, weights, write_recipe

STEPS = 5
"""Of an epoch."""
PATIENCE = 2
# Its metric falls after the first epoch and rises above it in the fourth: who stops later has other weights.
SETTINGS = {"max_steps": -1, "num_train_epochs": 8, "best_model": True, "early_stopping_patience": PATIENCE}
SETTINGS |= {"fit_head": False, "learning_rate": 1e-3}


def recipe(place, output, **changes):
    return finetuning(place, output, **SETTINGS | changes)


def accuracies(run):
    """Return the validation accuracy after each epoch, of a run's log."""
    told = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        one["epoch"]: one["eval_accuracy"] for one in reversed(told) if "eval_accuracy" in one and one["epoch"] >= 1
    }


@pytest.fixture(scope="module")
def place(workplace, tmp_path_factory):
    """A folder in which a run was not interrupted, and beside it others can be."""
    root = tmp_path_factory.mktemp("early_stopping")
    for path in workplace.iterdir():
        (root / path.name).symlink_to(path)
    return root


@pytest.fixture(scope="module")
def epochs(place):
    """The validation accuracy after each epoch of the uninterrupted run."""
    assert main(["run", recipe(place, "whole")]) == 0
    found = accuracies(place / "whole")
    return [found[epoch] for epoch in sorted(found)]


def test_it_stops_after_the_evaluations_that_are_no_better_and_keeps_the_best(place, epochs):
    best = epochs.index(max(epochs))
    assert len(epochs) == best + 1 + PATIENCE < SETTINGS["num_train_epochs"]
    assert record(place, "whole")["after"] == pytest.approx(max(epochs))
    steps = STEPS * len(epochs)
    assert record(place, "whole")["notes"] == [f"stopped at step {steps} of {STEPS * SETTINGS['num_train_epochs']}"]
    assert record(place, "whole")["examples"] == 144 * len(epochs)


def kill_in_step(monkeypatch, number):
    step, steps = DistillationTrainer.training_step, []

    def killed(self, *arguments):
        steps.append(1)
        if len(steps) == number:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(DistillationTrainer, "training_step", killed)


def kill_before_writing(monkeypatch):
    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgemin_hf.recipe.train.atomic_folder", killed)


KILLS = {
    "after the best": lambda monkeypatch: kill_in_step(monkeypatch, STEPS + 3),
    "before it would stop": lambda monkeypatch: kill_in_step(monkeypatch, 2 * STEPS + 3),
    "after it has stopped": kill_before_writing,
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_run_stops_at_the_same_step_with_the_same_weights(place, epochs, kill, monkeypatch, capsys):
    name = kill.replace(" ", "_")
    killed = recipe(place, name)
    with monkeypatch.context() as patched:
        KILLS[kill](patched)
        assert main(["run", killed]) == 130
    capsys.readouterr()
    assert main(["run", killed]) == 0
    assert "resumed at step" in capsys.readouterr().out
    assert weights(place, name) == weights(place, "whole")
    for key in ("after", "examples", "notes"):
        assert record(place, name)[key] == record(place, "whole")[key], key


def test_an_uninterrupted_run_is_that_of_transformers_own_callback(place, epochs, monkeypatch):
    monkeypatch.setattr("edgemin_hf.recipe.train.EarlyStopping", EarlyStoppingCallback)
    assert main(["run", recipe(place, "theirs")]) == 0
    assert weights(place, "theirs") == weights(place, "whole")


@pytest.mark.parametrize("stage", ["finetune", "distill", "quantize"])
def test_without_a_best_model_there_is_nothing_to_wait_for(place, capsys, stage):
    assert main(["run", str(write_recipe(place, put(f"{stage}.early_stopping_patience", 2, "output_dir", "no")))]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    expected = f"{stage}.early_stopping_patience: 2 beside best_model: false; allowed: beside best_model: true"
    assert expected in line


def test_no_patience_is_refused(place, capsys):
    assert main(["run", recipe(place, "run", early_stopping_patience=0)]) == 2
    assert re.search("finetune.early_stopping_patience: 0; ", capsys.readouterr().err)
