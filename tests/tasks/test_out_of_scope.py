"""A label for what is out of scope: its logit is shifted by what validation rows say, in models and in rivals."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from edgemin_hf.cli import main
from edgemin_hf.rivals.base import Given, Made
from edgemin_hf.rivals.compare import make_rivals
from edgemin_hf.tasks import TextClassification
from tests.helpers.models import sentences, write_tsv
from tests.helpers.recipes import write_recipe

TASK = TextClassification("train.csv", "test.csv")
OTHER = 2


def drawn(rows=300, labels=5, seed=0):
    """Logits that are right more often than not, but for a label that is hardly ever the highest."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, labels, rows)
    logits = draw.normal(size=(rows, labels)).astype(np.float32)
    logits[np.arange(rows), truth] += 2.0
    logits[:, OTHER] -= 3.0
    return logits, truth


def right(logits, truth, shift):
    shifted = logits.astype(np.float64)
    shifted[:, OTHER] += shift
    return (shifted.argmax(axis=1) == truth).mean()


@pytest.mark.parametrize("seed", range(3))
def test_no_shift_of_a_fine_grid_is_better(seed):
    logits, truth = drawn(seed=seed)
    shift = TASK.out_of_scope_shift(logits, truth, OTHER)
    best = max(right(logits, truth, by) for by in np.linspace(-8, 8, 3201))
    assert right(logits, truth, shift) >= best > right(logits, truth, 0)
    assert shift == pytest.approx(3, abs=1.5)


def test_the_shift_by_hand():
    # Leads of the best other logit: 1, 2 and 4 of rows out of scope, 3 and 9 of others.
    leads, truth = np.array([3.0, 1.0, 9.0, 4.0, 2.0]), np.array([0, OTHER, 1, OTHER, OTHER])
    logits = np.zeros((5, 3), np.float32)
    logits[np.arange(5), [0, 0, 1, 0, 1]] = leads
    # Below 2.5 two of three are found and none is wrong; below 6.5 all three, and one is wrong: as good, further away.
    assert TASK.out_of_scope_shift(logits, truth, OTHER) == 2.5
    assert TASK.out_of_scope_shift(logits[[1, 3]], truth[[1, 3]], OTHER) == 5.0  # above all rows
    assert TASK.out_of_scope_shift(logits[[0, 2]], truth[[0, 2]], OTHER) == 0.0  # no such row
    # Too readily given, it is given less.
    readily = np.array([[-2.0, -9.0, 0.0], [-1.0, -9.0, 0.0], [-5.0, -9.0, 0.0], [-4.0, -9.0, 0.0]], np.float32)
    assert TASK.out_of_scope_shift(readily, np.array([0, 0, OTHER, OTHER]), OTHER) == -3.0


def test_the_metric_that_decides_chooses():
    # Three rows out of scope lie behind four that are not: more rows are right without them, the mean F1 is less.
    leads, truth = np.repeat([9.0, 9.0, 0.5, 1.0], [20, 16, 4, 3]), np.repeat([0, 1, 1, OTHER], [20, 16, 4, 3])
    logits = np.zeros((43, 3), np.float32)
    logits[np.arange(43), np.minimum(truth, 1)] = leads
    f1 = TextClassification("train.csv", "test.csv", metric={"name": "f1", "average": "macro"})
    assert TASK.out_of_scope_shift(logits, truth, OTHER) == 0.0
    assert f1.out_of_scope_shift(logits, truth, OTHER) == 5.0


def test_a_fine_tuned_teacher_must_know_it():
    table = Dataset.from_dict({"text": ["a", "b"], "label": ["yes", "oos"]})
    task = TextClassification("train.csv", "test.csv", out_of_scope_label="oos")
    task.check_training(table, {"yes": 0, "oos": 1})
    with pytest.raises(ValueError, match="out_of_scope_label: 'oos'; expected: one of the teacher's labels"):
        task.check_training(table, {"yes": 0, "no": 1})


def test_rivals_are_shifted_too(tmp_path):
    logits, truth = drawn()
    texts = [str(row) for row in range(len(truth))]
    task = TextClassification("train.csv", "test.csv", out_of_scope_label="2")
    ids = {str(number): number for number in range(5)}
    given = Given(task, tmp_path, False, ids, texts, truth, texts, truth, texts, seed=0)

    def rival(given, folder):
        return [Made("a rival", logits, 0, lambda text: logits[[int(text)]])]

    ((made, _),) = make_rivals({"rival": rival}, given, tmp_path)
    expected = logits.copy()
    expected[:, OTHER] += TASK.out_of_scope_shift(logits, truth, OTHER)
    np.testing.assert_array_equal(made.scores, expected)


@pytest.fixture(scope="module")
def scoped(workplace, tmp_path_factory):
    """A run with a label that a tenth of the rows have, whatever their words."""
    root = tmp_path_factory.mktemp("scoped")
    (root / "teacher").symlink_to(workplace / "teacher")
    for name, rows in (("train", 200), ("test", 40)):
        table = [(text, "oos" if row % 10 == 0 else label) for row, (text, label) in enumerate(sentences(rows))]
        write_tsv(root / f"{name}.tsv", table)
    return root


STAGES = [
    {"stage": "finetune", "max_steps": 6},
    {"stage": "task_distill", "max_steps": 2},
    {"stage": "quantize", "max_steps": 2},
    {"stage": "export"},
]


def recipe_of(root, name, stages, **task):
    def change(recipe):
        recipe["output_dir"] = str(root / name)
        recipe["task"] |= {"metric": {"name": "f1", "average": "macro"}, **task}
        recipe["stages"] = stages

    return str(write_recipe(root, change, f"{name}.yaml"))


def test_each_stage_shifts_its_heads_bias(scoped):
    assert main(["run", recipe_of(scoped, "plain", STAGES)]) == 0
    assert main(["run", recipe_of(scoped, "run", STAGES, out_of_scope_label="oos")]) == 0
    plain, run = scoped / "plain", scoped / "run"
    config = json.loads((run / "teacher/config.json").read_text())
    label = config["label2id"]["oos"]
    before, after = (load_file(folder / "teacher/model.safetensors") for folder in (plain, run))
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {"classifier.bias"}
    difference = after["classifier.bias"] - before["classifier.bias"]
    assert difference[label] != 0
    assert difference.count_nonzero() == 1
    records = [json.loads((run / f"stages/{stage['stage']}.json").read_text()) for stage in STAGES[:3]]
    assert all(any(note.startswith("logit of oos shifted by") for note in found["notes"]) for found in records)
    assert records[0]["after"] >= json.loads((plain / "stages/finetune.json").read_text())["after"]


@pytest.mark.parametrize(
    ("change", "stages", "told"),
    [
        ({"out_of_scope_label": "none"}, STAGES, "out_of_scope_label: 'none'; expected: a label of train_file"),
        (
            {"out_of_scope_label": "oos"},
            [STAGES[0], {"stage": "quantize", "provider": "inc"}],
            "provider: inc beside task.out_of_scope_label; allowed: native",
        ),
    ],
)
def test_what_will_not_do_is_refused(scoped, change, stages, told, capsys):
    assert main(["run", recipe_of(scoped, "refused", stages, **change)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_fsdp_is_refused(scoped, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert main(["run", recipe_of(scoped, "sharded", STAGES[:1], out_of_scope_label="oos")]) == 2
    assert "task.out_of_scope_label under FSDP" in capsys.readouterr().err
