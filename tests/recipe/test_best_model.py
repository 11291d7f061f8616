"""Where a recipe asks for it, every training stage validates on the way and keeps its best model."""

import json

import pytest

from edgemin_hf.cli import main
from tests.helpers.recipes import NAMES, only, write_recipe

TRAININGS = ("finetune", "distill", "task_distill", "prune", "quantize")


@pytest.mark.long
def test_every_training_stage_keeps_its_best_model(place):
    def change(recipe):
        only(*TRAININGS)(recipe)
        for stage in recipe["stages"]:
            stage |= {"max_steps": -1, "num_train_epochs": 3, "best_model": True, "learning_rate": 1e-3}

    assert NAMES[:5] == list(TRAININGS)
    assert main(["run", str(write_recipe(place, change))]) == 0
    log = [json.loads(line) for line in (place / "run/log.jsonl").read_text().splitlines()]
    for name in TRAININGS:
        record = json.loads((place / "run/stages" / f"{name}.json").read_text())
        measured = f"eval_{record['metric']}"
        values = [line[measured] for line in log if line["stage"] == name and measured in line]
        assert len(values) == 3  # an epoch each
        assert record["after"] == pytest.approx((min if record["metric"] == "loss" else max)(values), rel=1e-4)
