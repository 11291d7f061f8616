"""What is told of a stage at work: a bar on a terminal, plain lines elsewhere, nothing of what is short."""

import io
import logging
from types import SimpleNamespace

import pytest
from transformers import TrainerControl, TrainerState

from edgemin_hf.recipe.progress import Line, TrainingProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def bars_are_on(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)


def train(line, clock, steps=100, seconds=1.0):
    progress, state = TrainingProgress(line, "accuracy", clock), TrainerState(max_steps=steps)
    state.is_world_process_zero = True
    told = [SimpleNamespace(), state, TrainerControl()]
    progress.on_train_begin(*told)
    for step in range(1, steps + 1):
        clock.now += seconds
        state.global_step = step
        progress.on_step_end(*told)
        if step % 10 == 0:
            progress.on_log(*told, logs={"loss": 1 / step})
        if step == 50:
            progress.on_log(*told, logs={"eval_accuracy": 0.75, "eval_loss": 9.0})


def test_a_terminal_shows_one_line_with_bar_loss_validation_and_time_and_nothing_afterwards(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    screen, clock = Terminal(), Clock()
    line = Line(screen, clock)
    with line.of("distill", 3.0, "run/distill"):
        line._bar.mininterval, line._bar.miniters, line._bar.dynamic_miniters, line._bar.ncols = 0, 0, False, 160
        train(line, clock)
    written = screen.getvalue()
    assert "\n" not in written  # all of it is one line
    shown = [part.rstrip() for part in written.split("\r") if part.strip()]
    assert shown[0] == "distill: at work, about 3.0 min"
    assert shown[1].startswith("distill   2%|")
    assert shown[1].endswith("| 2/100, 1.6 min left")
    assert [part for part in shown if part.endswith("| 75/100, loss 0.0143, validation accuracy 0.7500, 0.4 min left")]
    assert written.split("\r")[-2].strip() == ""  # it is wiped for the stage's result


def test_what_takes_less_than_two_seconds_has_no_bar():
    screen, clock = Terminal(), Clock()
    line = Line(screen, clock)
    with line.of("distill", 0.01, "run/distill"):
        train(line, clock, seconds=0.015)
    assert "%" not in screen.getvalue()


def test_without_a_terminal_a_plain_line_comes_every_half_minute(caplog):
    clock = Clock()
    line = Line(io.StringIO(), clock)
    with caplog.at_level(logging.INFO), line.of("distill", 3.0, "run/distill"):
        train(line, clock)
    assert [record.getMessage() for record in caplog.records] == [
        "distill: begun (about 3.0 min), into run/distill",
        "distill: step 30 of 100, loss 0.0500, 1.2 min left",
        "distill: step 60 of 100, loss 0.0200, validation accuracy 0.7500, 0.7 min left",
        "distill: step 90 of 100, loss 0.0125, validation accuracy 0.7500, 0.2 min left",
    ]
    assert [record.event["event"] for record in caplog.records] == ["begun", "progress", "progress", "progress"]


def test_a_trainer_outside_a_run_tells_nothing():
    train(Line(), Clock())
