import json

import pytest

from edgemin_hf.cli import main
from tests.helpers.recipes import RECIPE, write_recipe

CHEAP = {"stage": "rivals", "rivals": ["bag_of_words", "frozen_encoder"], "sentences": 4, "rounds": 1}


def with_rivals(recipe):
    recipe["stages"] = [stage for stage in RECIPE["stages"] if stage["stage"] not in ("distill", "prune")]
    recipe["stages"].insert(-1, CHEAP)


def test_the_report_and_the_card_tell_the_rivals(place):
    assert main(["run", str(write_recipe(place, with_rivals))]) == 0
    rows = json.loads((place / "run/rivals/rivals.json").read_text())["rows"]
    names = [row["name"] for row in rows]
    assert names[0] == "this student, INT8"
    assert len(names) == 5
    assert [("ahead" in row) for row in rows] == [False, True, True, True, True]
    results = json.loads((place / "run/evaluate/results.json").read_text())
    assert rows[0]["value"] == results["student_onnxruntime_int8"]["value"]
    assert rows[-1]["value"] == results["teacher_onnxruntime_int8"]["value"]
    for file in ("README.md", "report.html"):
        text = (place / "run/artefact" / file).read_text()
        assert all(name in text for name in names)
        assert "frozen encoder, linear head, fp32" in text.split("lazy ways")[1]


def test_rivals_alone_need_no_training(place, capsys):
    def change(recipe):
        with_rivals(recipe)
        recipe["stages"] = [recipe["stages"][0], CHEAP]

    assert main(["rivals", str(write_recipe(place, change))]) == 0
    assert "bag of words" in capsys.readouterr().out
    assert not (place / "run").exists()
    rows = json.loads((place / "run-rivals/rivals/rivals.json").read_text())["rows"]
    assert not any("ahead" in row for row in rows)


def test_what_makes_no_scores_is_refused(place, capsys):
    def change(recipe):
        recipe["stages"] = [{"stage": "rivals"}]
        recipe["task"]["type"] = "regression"

    (place / "train.tsv").unlink()
    (place / "train.tsv").write_text("text\tlabel\n" + "".join(f"card {i}\t{i}\n" for i in range(40)))
    (place / "test.tsv").unlink()
    (place / "test.tsv").write_text("text\tlabel\n" + "".join(f"money {i}\t{i}\n" for i in range(10)))
    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert "rivals" in capsys.readouterr().err


@pytest.mark.parametrize("value", [[], ["guess"], "bag_of_words"])
def test_an_odd_list_is_one_line(place, capsys, value):
    assert main(["run", str(write_recipe(place, odd(value)))]) == 2
    assert "rivals" in capsys.readouterr().err


def odd(value):
    def change(recipe):
        recipe["stages"] = [{**CHEAP, "rivals": value}]

    return change
