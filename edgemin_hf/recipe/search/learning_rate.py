"""With which learning rate, and for how many epochs, should a model be fine-tuned? A few of each are tried.

Each trial is a whole training with a schedule of its own. One that is cut short would be measured while its rate is
still high, which favours low rates: so no trial is stopped for being behind another one, and no epoch of a longer
training stands for a shorter one. To stay cheap, the rate is chosen first, and the epochs then with that rate alone.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState

from edgemin_hf.recipe.outcome import Outcome
from edgemin_hf.report.records import Trial
from edgemin_hf.utils.atomic_files import atomic_folder, write_atomic
from edgemin_hf.utils.processes import of_first

logger = logging.getLogger(__name__)

_RATES = (1.0, 0.4, 2.0)
"""Learning rates to try, by the recipe's: such as 5e-5, 2e-5 and 1e-4. The recipe's own is the first."""
_LONGER = 2.0
"""What the recipe's epochs are multiplied by in the last trial."""

Train = Callable[[float, float, Path, Path], Outcome]
"""Trains with a learning rate for so many epochs, into a folder, with another one for its checkpoints."""


def epochs_of_search(num_train_epochs: float) -> float:
    """Return how many epochs all trials together take.

    Args:
        num_train_epochs: The recipe's own.

    Example:
        >>> from edgemin_hf.recipe.search import epochs_of_search
        >>> epochs_of_search(3.0)
        15.0
    """
    return num_train_epochs * (len(_RATES) + _LONGER)


def search_learning_rate(
    learning_rate: float,
    num_train_epochs: float,
    train: Train,
    folder: Path,
    work: Path,
    greater_is_better: bool = True,
) -> Outcome:
    """Train with several learning rates, and with the best of them for longer; keep the best model of all.

    What counts is the metric on the validation rows, of equals the trial that came first. Trials that ended before a
    kill are not repeated, the one at work goes on from its last checkpoint, and no model is trained again.

    Args:
        learning_rate: The recipe's own, which is tried first.
        num_train_epochs: Likewise.
        train: Makes a trial.
        folder: Where the best model is to stand.
        work: Folder for the trials.
        greater_is_better: Whether more of the metric is better.

    Returns:
        What the best trial told, with all trials.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.recipe import Outcome
        >>> from edgemin_hf.recipe.search import search_learning_rate
        >>> def train(learning_rate, num_train_epochs, folder, work):
        ...     folder.mkdir(parents=True)
        ...     accuracy = 0.75 if learning_rate == 1e-4 else 0.5
        ...     return Outcome(examples=8, metric="accuracy", before=0.25, after=accuracy)
        >>> with TemporaryDirectory() as above:
        ...     outcome = search_learning_rate(5e-5, 3.0, train, Path(above, "teacher"), Path(above, "work"))
        >>> outcome.after, [(trial.learning_rate, trial.num_train_epochs) for trial in outcome.trials]
        (0.75, [(5e-05, 3.0), (2e-05, 3.0), (0.0001, 3.0), (0.0001, 6.0)])
    """
    main, file = PartialState().is_main_process, work / "trials.json"
    trials: list[Trial] = []
    if file.is_file():
        trials = [Trial.from_dict(trial) for trial in json.loads(file.read_text(encoding="utf-8"))]
    trials = of_first(trials)  # another machine may not see the file
    if main and trials:
        logger.info("%d trial(s) were made before: taken up", len(trials))
    while (settings := _next(trials, learning_rate, num_train_epochs, greater_is_better)) is not None:
        place = _place(work, len(trials))
        trials.append(of_first(_trial(*settings, train(*settings, place / "model", place / "checkpoints"))))
        PartialState().wait_for_everyone()
        if main:
            last = trials[-1]
            logger.info("%s: validation %s %.4f", _settings(last), last.metric, last.after)
            write_atomic(file, json.dumps([trial.to_dict() for trial in trials]))
            shutil.rmtree(place / "checkpoints", ignore_errors=True)
            for index in set(range(len(trials))) - {_best(trials, greater_is_better)}:
                shutil.rmtree(_place(work, index), ignore_errors=True)
    best = _best(trials, greater_is_better)
    if main:
        with atomic_folder(folder) as partial:
            shutil.copytree(_place(work, best) / "model", partial, dirs_exist_ok=True)
    return _outcome(trials, best)


def _next(
    trials: Sequence[Trial], learning_rate: float, num_train_epochs: float, greater_is_better: bool
) -> tuple[float, float] | None:
    """Return the learning rate and the epochs of the trial after others; None where there is none."""
    if len(trials) < len(_RATES):
        # Of three digits: who writes it into a recipe gets the same training.
        factor = _RATES[len(trials)]
        return learning_rate if factor == 1 else float(f"{factor * learning_rate:.3g}"), num_train_epochs
    if len(trials) == len(_RATES):
        return trials[_best(trials, greater_is_better)].learning_rate, _LONGER * num_train_epochs
    return None


def _best(trials: Sequence[Trial], greater_is_better: bool) -> int:
    sign = 1 if greater_is_better else -1
    return max(range(len(trials)), key=lambda index: sign * trials[index].after)


def _place(work: Path, index: int) -> Path:
    return work / f"trial-{index + 1}"


def _trial(learning_rate: float, num_train_epochs: float, outcome: Outcome) -> Trial:
    told = {name: value for name, value in outcome.told().items() if name in {field.name for field in fields(Trial)}}
    return Trial(learning_rate=learning_rate, num_train_epochs=num_train_epochs, **told)


def _settings(trial: Trial) -> str:
    return f"learning_rate {trial.learning_rate:g}, num_train_epochs {trial.num_train_epochs:g}"


def _outcome(trials: Sequence[Trial], best: int) -> Outcome:
    chosen = trials[best]
    all_of_them = "; ".join(f"{_settings(trial)}: {trial.after:.4f}" for trial in trials)
    note = f"best of {len(trials)} trials: {_settings(chosen)} (validation {chosen.metric} of {all_of_them})"
    return Outcome(
        examples=chosen.examples,
        metric=chosen.metric,
        before=chosen.before,
        after=chosen.after,
        notes=(*chosen.notes, note),
        trials=tuple(trials),
    )
