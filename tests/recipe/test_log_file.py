"""What trainings tell beside their results: `log.jsonl`, JSON lines for machines, trackers."""

import json
import os
import subprocess
import sys

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from edgemin_hf.cli import main
from edgemin_hf.recipe.log_file import LogFile, forget
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.recipes import finetuning

ARGUMENTS = {"max_steps": 12, "save_steps": 4, "best_model": False, "training_arguments": {"logging_steps": 5}}
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


@pytest.fixture(autouse=True)
def bars_as_before(monkeypatch):
    for name in ("TQDM_DISABLE", "TQDM_DELAY", "TQDM_LEAVE", "TRANSFORMERS_VERBOSITY", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def entries(place, output):
    lines = [json.loads(line) for line in (place / output / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


@pytest.mark.long
def test_the_log_of_a_killed_run_is_that_of_an_unbroken_one(place, monkeypatch, capsys):
    assert main(["run", finetuning(place, "whole", **ARGUMENTS)]) == 0
    steps, step = [], DistillationTrainer.training_step

    def killed(self, *arguments):
        steps.append(1)
        if len(steps) == 11:  # after the log of step 10, and the checkpoint of step 8
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "training_step", killed)
        assert main(["run", finetuning(place, "broken", **ARGUMENTS)]) == 130
    with (place / "broken/log.jsonl").open("a") as log:
        log.write('{"stage": "finetune", "st')
    capsys.readouterr()
    assert main(["run", finetuning(place, "broken", **ARGUMENTS), "--log-format", "json"]) == 0
    whole = entries(place, "whole")
    assert [(line["stage"], line["step"]) for line in whole if "loss" in line][:2] == [
        ("finetune", 5),
        ("finetune", 10),
    ]
    assert entries(place, "broken") == whole
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [event["event"] for event in events]
    assert told[0] == "plan"
    assert told.index("begun") < told.index("log") < told.index("done")
    assert next(event["step"] for event in events if event["event"] == "log" and "loss" in event) == 10
    assert next(event for event in events if event["event"] == "done")["metric"] == "accuracy"


def test_errors_are_json_too_where_machines_read(place, capsys):
    assert main(["run", finetuning(place, "bad", max_steps=-7), "--log-format", "json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["level"], told["code"]) == ("failed", "error", 2)
    assert "time" in told
    assert "max_steps: -7" in told["message"]


class Tracker(TrainerCallback):
    """Writes what it is told where TensorBoard would write."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        folder = args.logging_dir if hasattr(args, "logging_dir") else os.environ["TENSORBOARD_LOGGING_DIR"]
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "events.txt"), "a") as events:
            events.write(f"{args.run_name} {state.global_step} {logs.get('loss')}\n")


def test_trackers_are_told_of_every_training(place, monkeypatch, capsys):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "stub", Tracker)
    recipe = finetuning(place, "tracked", max_steps=2, training_arguments={"logging_steps": 1})
    assert main(["run", recipe, "--set", "report_to=[stub]"]) == 0
    written = (place / "tracked/tensorboard/finetune/events.txt").read_text().splitlines()
    assert [line.split()[:3] for line in written if "None" not in line] == [["tiny", "finetune", step] for step in "12"]
    assert "{'" not in capsys.readouterr().out  # no dictionaries
    assert main(["run", recipe]) == 0  # who is told makes no other stage
    assert "finetune        done" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["tensorbord", "dagshub"])
def test_a_tracker_that_is_not_there_is_one_line_before_anything_is_done(place, capsys, monkeypatch, name):
    def missing():
        raise RuntimeError("it needs dagshub. Run `pip install dagshub`.")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "dagshub", missing)
    assert main(["run", finetuning(place, "untracked"), "--set", f"report_to=[{name}]", "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"report_to: {name}" in line
    assert ("allowed: " if name == "tensorbord" else "expected: installed") in line


def test_bars_of_every_library_come_late_and_go():
    """tqdm reads it when it is imported, which must not be before the command line says so."""
    code = (
        "import io, sys, edgemin_hf.cli as cli\n"
        "assert 'tqdm' not in sys.modules\n"
        "sys.stderr = io.StringIO(); sys.stderr.isatty = lambda: True\n"
        "cli.log_to_terminal(('edgemin_hf',))\n"
        "from tqdm import tqdm; bar = tqdm(range(3))\n"
        "print(bar.delay, bar.leave, bar.disable)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TQDM")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "2.0 False False\n"


def test_a_training_killed_after_its_end_tells_its_end_once(tmp_path):
    """It goes on from the checkpoint of its last step; the kill may have left a line without its end, too."""
    file, arguments = tmp_path / "log.jsonl", TrainingArguments(str(tmp_path), use_cpu=True)
    entries = [{"stage": "distill", "step": step, "loss": 0.5} for step in (4, 8)]
    end = {"stage": "distill", "step": 8, "train_runtime": 3.0}
    file.write_text("\n".join(map(json.dumps, [*entries, end])))
    log, state = LogFile(file, "distill"), TrainerState(global_step=8)
    log.on_train_begin(arguments, state, TrainerControl())
    log.on_log(arguments, state, TrainerControl(), logs={"train_runtime": 4.0})
    assert list(map(json.loads, file.read_text().splitlines())) == [*entries, end | {"train_runtime": 4.0}]


def test_a_stage_that_is_made_anew_leaves_no_lines_of_before(tmp_path):
    file = tmp_path / "log.jsonl"
    forget(file, "finetune")  # no run was here yet
    kept = '{"stage": "distill", "step": 1}\n'
    file.write_text(f'{{"stage": "finetune", "part": "trial-4", "step": 1}}\n{kept}{{"stage": "dist')
    forget(file, "finetune")
    assert file.read_text() == kept
