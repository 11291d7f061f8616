import re

import pytest

from edgemin_hf.cli import main
from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.recipe.search.learning_rate import epochs_of_search, search_learning_rate
from edgemin_hf.training.trainer import DistillationTrainer
from tests.helpers.recipes import finetuning, record, weights

RATES = [5e-5, 2e-5, 1e-4]


class Trials:
    """Trainings that only say what they were asked for.

    Args:
        values: The metric after each, by learning rate and epochs.
        killed: Number of the call that is killed when its model is written, but not yet told.
    """

    def __init__(self, values, killed=None):
        self.values, self.killed, self.asked, self.models = values, killed, [], []

    def __call__(self, learning_rate, num_train_epochs, folder, work):
        self.asked.append((learning_rate, num_train_epochs))
        self.models.append(sorted(path.parent.name for path in folder.parents[1].glob("trial-*/model")))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights").write_text(f"{learning_rate:g} {num_train_epochs:g}")
        work.mkdir(exist_ok=True)
        if len(self.asked) == self.killed:
            raise KeyboardInterrupt
        value = self.values[learning_rate, num_train_epochs]
        return Outcome(examples=8, metric="accuracy", before=0.25, after=value, notes=(f"told {value}",))


def search(tmp_path, trials, **others):
    return search_learning_rate(5e-5, 3.0, trials, tmp_path / "teacher", tmp_path / "work", **others)


def test_of_a_metric_whose_lower_values_are_better_the_lowest_is_taken(tmp_path):
    values = {(rate, 3.0): error for rate, error in zip(RATES, (0.5, 0.3, 0.4), strict=True)} | {(2e-5, 6.0): 0.35}
    outcome = search(tmp_path, Trials(values), greater_is_better=False)
    assert outcome.after == 0.3
    assert (tmp_path / "teacher/weights").read_text() == "2e-05 3"


@pytest.mark.parametrize("best", RATES)
@pytest.mark.parametrize("longer", ["better", "as good", "worse"])
def test_the_rate_is_chosen_first_and_the_epochs_with_it(tmp_path, best, longer):
    values = {(rate, 3.0): 0.75 if rate == best else 0.5 for rate in RATES}
    values[best, 6.0] = {"better": 0.8, "as good": 0.75, "worse": 0.7}[longer]
    trials = Trials(values)
    outcome = search(tmp_path, trials)
    assert trials.asked == [*((rate, 3.0) for rate in RATES), (best, 6.0)]
    assert [(one.learning_rate, one.num_train_epochs) for one in outcome.trials] == trials.asked
    assert [one.after for one in outcome.trials] == [values[asked] for asked in trials.asked]
    epochs = 6 if longer == "better" else 3
    assert (tmp_path / "teacher/weights").read_text() == f"{best:g} {epochs}"
    assert outcome.after == max(values.values())
    told, note = outcome.notes
    assert told == f"told {outcome.after}"
    assert note.startswith(f"best of 4 trials: learning_rate {best:g}, num_train_epochs {epochs} (validation ")
    assert "learning_rate 5e-05, num_train_epochs 3: " in note
    assert f"; learning_rate {best:g}, num_train_epochs 6: {values[best, 6.0]:.4f})" in note


def test_of_equals_the_recipes_own_settings_are_taken(tmp_path):
    outcome = search(tmp_path, Trials({(rate, 3.0): 0.5 for rate in RATES} | {(5e-5, 6.0): 0.5}))
    assert outcome.notes[-1].startswith("best of 4 trials: learning_rate 5e-05, num_train_epochs 3 (")


def test_the_estimate_counts_the_epochs_of_all_trials(tmp_path):
    trials = Trials(dict.fromkeys([*((rate, 3.0) for rate in RATES), (5e-5, 6.0)], 0.5))
    search(tmp_path, trials)
    assert sum(epochs for _, epochs in trials.asked) == epochs_of_search(3.0)


def test_no_more_than_the_best_model_and_the_one_at_work_lie_on_the_disk(tmp_path):
    values = {(5e-5, 3.0): 0.5, (2e-5, 3.0): 0.75, (1e-4, 3.0): 0.5, (2e-5, 6.0): 0.25}
    trials = Trials(values)
    search(tmp_path, trials)
    assert trials.models == [[], ["trial-1"], ["trial-2"], ["trial-2"]]
    assert not list((tmp_path / "work").glob("*/checkpoints"))


@pytest.mark.parametrize("killed", [1, 2, 3, 4])
def test_what_was_told_before_a_kill_is_not_tried_again(tmp_path, killed):
    values = {(5e-5, 3.0): 0.5, (2e-5, 3.0): 0.75, (1e-4, 3.0): 0.6, (2e-5, 6.0): 0.7}
    whole = search(tmp_path / "whole", Trials(values))
    first, second = Trials(values, killed), Trials(values)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "killed", first)
    assert search(tmp_path / "killed", second) == whole
    assert second.asked == list(values)[killed - 1 :]
    again = Trials(values)
    assert search(tmp_path / "killed", again) == whole, "killed before the record was written"
    assert again.asked == []
    assert (tmp_path / "killed/teacher/weights").read_text() == "2e-05 3"


SETTINGS = {"learning_rate": 1e-3, "num_train_epochs": 2, "best_model": True, "early_stopping_patience": 1}


def recipe(place, output, **changes):
    return finetuning(place, output, **SETTINGS | changes)


@pytest.fixture(scope="module")
def place(workplace, tmp_path_factory):
    """A folder in which a search was not interrupted, and beside it others can be."""
    root = tmp_path_factory.mktemp("tuned")
    for path in workplace.iterdir():
        (root / path.name).symlink_to(path)
    assert main(["run", recipe(root, "whole", tune=True)]) == 0
    return root


@pytest.mark.long
def test_the_winner_is_what_a_recipe_with_its_settings_makes(place):
    found = record(place, "whole")
    rates = [trial["learning_rate"] for trial in found["trials"]]
    epochs = [trial["num_train_epochs"] for trial in found["trials"]]
    assert (rates[:3], epochs) == ([1e-3, 4e-4, 2e-3], [2, 2, 2, 4])
    after = [trial["after"] for trial in found["trials"]]
    assert len(set(after)) > 1
    assert found["after"] == max(after)
    best = after.index(max(after))
    chosen = {"learning_rate": rates[best], "num_train_epochs": epochs[best]}
    assert main(["run", recipe(place, "plain", **chosen)]) == 0
    assert weights(place, "plain") == weights(place, "whole")
    plain = record(place, "plain")
    assert all(found[key] == plain[key] for key in ("examples", "metric", "before", "after"))
    assert found["notes"] == [*plain.get("notes", []), found["notes"][-1]]


@pytest.mark.long
def test_killed_in_the_second_trial_and_resumed_equals_uninterrupted(place, monkeypatch, capsys):
    step, steps = DistillationTrainer.training_step, []

    def killed(self, *arguments):
        steps.append(1)
        if len(steps) == seen + 8:  # in the second trial's second epoch
            raise KeyboardInterrupt
        return step(self, *arguments)

    seen = record(place, "whole")["trials"][0]["examples"] // 144 * 5
    path = recipe(place, "killed", tune=True)
    with monkeypatch.context() as patched:
        patched.setattr(DistillationTrainer, "training_step", killed)
        assert main(["run", path]) == 130
    capsys.readouterr()
    assert main(["run", path, "--dry-run"]) == 0
    assert re.search("^finetune +to resume", capsys.readouterr().out, re.MULTILINE)
    assert main(["run", path]) == 0
    out = capsys.readouterr().out
    assert "1 trial(s) were made before: taken up" in out
    assert "stage finetune: resumed at step 5 of 10" in out
    assert weights(place, "killed") == weights(place, "whole")
    for key in ("trials", "after", "examples", "notes"):
        assert record(place, "killed")[key] == record(place, "whole")[key], key
    assert not (place / "killed/work/finetune").exists()


def test_a_dry_run_counts_the_trials(place, capsys):
    counts = []
    for changes in ({}, {"tune": True}):
        assert main(["run", recipe(place, "dry", **changes), "--dry-run"]) == 0
        (line,) = re.findall(r"^finetune .*", capsys.readouterr().out, re.MULTILINE)
        examples, flops = re.search(r"([\d,]+) +([\d.e-]+) +[\d.]+ min", line).groups()
        counts.append((int(examples.replace(",", "")), float(flops)))
    (one, work), (all_of_them, more_work) = counts
    assert all_of_them == 5 * one
    assert more_work == pytest.approx(5 * work, rel=0.01)


def test_steps_instead_of_epochs_are_one_line(place, capsys):
    assert main(["run", recipe(place, "dry", tune=True, max_steps=4)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "finetune.max_steps: 4 beside tune: true; allowed: -1, since it tries epochs" in line
