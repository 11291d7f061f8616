"""What a resumed training logs is what the unbroken one logged, to the last digit."""

import pytest
from transformers import TrainerCallback

from edgemin_hf import TaskDistillationConfig, create_student
from edgemin_hf.training.running_losses import RunningLosses
from tests.helpers.models import tiny
from tests.helpers.training import dataset, make

TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "eval_runtime"} | {
    "eval_samples_per_second",
    "eval_steps_per_second",
}


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def untimed(history):
    return [{name: value for name, value in logged.items() if name not in TIMES} for logged in history]


@pytest.mark.parametrize(("saved", "killed"), [(2, 4), (4, 5)])
def test_the_log_of_a_killed_and_resumed_run_is_that_of_an_unbroken_one(tmp_path, tokenizer, saved, killed):
    """Checkpoints lie between two logs: the means after it are of steps before and after the kill."""

    def trainer(folder):
        teacher = tiny(num_labels=3)
        found = make(
            folder,
            tokenizer,
            create_student(teacher, 2),
            teacher,
            TaskDistillationConfig(),
            data=dataset(20),
            eval_data=dataset(8),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=8,
            logging_steps=3,
            save_strategy="steps",
            save_steps=saved,
            eval_strategy="steps",
            eval_steps=3,
        )
        return found

    whole = trainer(tmp_path / "whole")
    done = whole.train()
    broken = trainer(tmp_path / "broken")
    broken.add_callback(KillAt(killed))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = trainer(tmp_path / "broken")
    again = resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in whole.state.log_history if "loss" in entry][:2] == [3, 6]
    assert untimed(resumed.state.log_history) == untimed(whole.state.log_history)
    assert again.training_loss == done.training_loss == again.metrics["train_loss"]
    losses = RunningLosses.read(tmp_path / "broken" / f"checkpoint-{saved}")
    assert losses.logged == (0 if saved == 2 else 3)
    assert all(rows == 4 * (saved - losses.logged) for _, rows in losses.terms.values())


def test_a_training_killed_after_its_last_step_tells_the_mean_of_all_steps(tmp_path, tokenizer):
    arguments = {"max_steps": 3, "logging_steps": 2, "save_strategy": "steps", "save_steps": 3}
    done = make(tmp_path, tokenizer, **arguments).train()
    again = make(tmp_path, tokenizer, **arguments).train(resume_from_checkpoint=True)
    assert again.training_loss == pytest.approx(done.training_loss, rel=1e-6)


def test_a_second_training_begins_its_log_anew(tmp_path, tokenizer):
    trainer = make(tmp_path, tokenizer, max_steps=2, logging_steps=5)
    first = trainer.train()
    assert first.training_loss > 0
    second = trainer.train()
    assert 0 < second.training_loss < first.training_loss
