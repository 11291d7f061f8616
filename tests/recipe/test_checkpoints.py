import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState
from transformers.trainer_utils import SaveStrategy

from edgemin_hf.cli import main
from edgemin_hf.recipe import checkpoints
from edgemin_hf.recipe.checkpoints import TimedCheckpoints
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.recipes import only, write_recipe


class Clock:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self):
        return self.now


def saved_at(step_seconds, save_seconds, steps, strategy=SaveStrategy.STEPS, asked=None):
    """Return the seconds at which checkpoints are asked for, in a training whose steps take the same time."""
    clock = Clock()
    callback, state, found = TimedCheckpoints(clock), TrainerState(), []
    args = SimpleNamespace(save_strategy=strategy, world_size=1)
    callback.on_train_begin(args, state, TrainerControl())
    for _ in range(steps):
        state.global_step += 1
        clock.now += step_seconds
        control = TrainerControl()
        callback.on_step_end(args, state, control)
        if control.should_save:
            found.append(clock.now - 100)
            clock.now += save_seconds
            callback.on_save(args, state, control)
    return found


def test_a_checkpoint_a_minute():
    assert saved_at(1.0, 0.0, 200) == [60, 120, 180]
    assert saved_at(7.0, 0.0, 30) == [63, 126, 189]
    assert saved_at(90.0, 0.0, 3) == [90, 180, 270]
    assert saved_at(0.01, 0.0, 5000) == []
    assert saved_at(1.0, 0.0, 200, SaveStrategy.NO) == []


def test_writing_takes_a_tenth_of_the_time_at_most():
    found = saved_at(1.0, 30.0, 1000)
    assert found[0] == 60
    assert all(later - earlier >= 300 for earlier, later in pairwise(found))


def test_processes_agree_and_ask_each_other_seldom(monkeypatch):
    asked = []

    def broadcast(decided):
        asked.append(list(decided))
        decided[:] = [True, 5]  # what the first process says

    monkeypatch.setattr(checkpoints, "broadcast_object_list", broadcast)
    clock = Clock()
    callback, state = TimedCheckpoints(clock), TrainerState()
    args = SimpleNamespace(save_strategy=SaveStrategy.STEPS, world_size=2)
    callback.on_train_begin(args, state, TrainerControl())
    saves = []
    for state.global_step in range(1, 12):
        clock.now += 1
        control = TrainerControl()
        callback.on_step_end(args, state, control)
        saves.append(control.should_save)
    assert [step for step, saved in enumerate(saves, start=1) if saved] == [1, 6, 11]
    assert len(asked) == 3


@pytest.mark.long
def test_a_training_saves_by_time_and_tells_what_it_takes_up(place, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    monkeypatch.setattr(checkpoints, "_MOST_SHARE", 1e9)
    path = write_recipe(place, only("finetune"))
    step = DistillationTrainer.training_step

    def killed(trainer, *arguments, **named):
        if trainer.state.global_step == 3:
            raise KeyboardInterrupt
        return step(trainer, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "training_step", killed)
        assert main(["run", str(path)]) == 130
    [kept] = place.glob("run/work/finetune/*/checkpoint-3")
    assert json.loads((kept / "trainer_state.json").read_text())["save_steps"] == 250
    capsys.readouterr()
    assert main(["run", str(path)]) == 0
    assert "stage finetune: resumed at step 3 of 4" in capsys.readouterr().out
    killed_weights = (place / "run/teacher/model.safetensors").read_bytes()
    monkeypatch.undo()
    assert main(["run", str(path), "--set", f"output_dir={place / 'b'}"]) == 0
    assert (place / "b/teacher/model.safetensors").read_bytes() == killed_weights
