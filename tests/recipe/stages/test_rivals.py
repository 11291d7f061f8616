import json
import re
import sys

import pytest
import torch

from edgemin_hf.cli import main
from edgemin_hf.recipe import Context, load_recipe
from edgemin_hf.recipe.stages.labels_alone import training_on_labels
from tests.helpers.figures import parsed
from tests.helpers.recipes import write_recipe

CHEAP = {"stage": "rivals", "rivals": ["bag_of_words", "frozen_encoder", "labels_alone"], "sentences": 4, "rounds": 1}


def with_rivals(recipe):
    recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in ("distill", "prune")]
    recipe["stages"].insert(-1, CHEAP)


def test_the_report_and_the_card_tell_the_rivals(place):
    assert main(["run", str(write_recipe(place, with_rivals))]) == 0
    rows = json.loads((place / "run/rivals/rivals.json").read_text())["rows"]
    names = [row["name"] for row in rows]
    assert names[0] == "this student, INT8"
    assert names[-2:] == ["student's shape, labels alone, INT8", "fine-tuned teacher, INT8"]
    assert len(names) == 6
    assert [("ahead" in row) for row in rows] == [False, *[True] * 5]
    assert not (place / "run/work/rivals").exists()
    results = json.loads((place / "run/evaluate/results.json").read_text())
    assert rows[0]["value"] == results["student_onnxruntime_int8"]["value"]
    assert rows[-1]["value"] == results["teacher_onnxruntime_int8"]["value"]
    for file in ("README.md", "report.html"):
        text = (place / "run/artefact" / file).read_text()
        assert all(name in text for name in names)
        assert "frozen encoder, linear head, fp32" in text.split("lazy ways")[1]
    card, page = ((place / "run/artefact" / file).read_text() for file in ("README.md", "report.html"))
    figure = (place / "run/artefact/figures/rivals.svg").read_text()
    [words] = re.findall(r"^!\[(.*)\]\(figures/rivals.svg\)$", card.split("## Results")[0], re.MULTILINE)
    assert parsed(figure).get("aria-label") == words
    assert figure in page.split("<h2>Results</h2>")[0]


def test_rivals_alone_need_no_training(place, capsys):
    def change(recipe):
        with_rivals(recipe)
        recipe["stages"] = [recipe["stages"][0], CHEAP]

    assert main(["rivals", str(write_recipe(place, change))]) == 0
    assert "bag of words" in capsys.readouterr().out
    assert not (place / "run").exists()
    found = json.loads((place / "run-rivals/rivals/rivals.json").read_text())
    assert not any("ahead" in row for row in found["rows"])
    assert found["left_out"] == ["labels_alone before there is a student; allowed: after the stage export"]


def context_of(place, change=lambda recipe: None):
    recipe, plain = load_recipe(write_recipe(place, change))
    return Context(recipe, plain, place, place / "run")


def test_labels_alone_is_trained_like_the_student_without_its_teacher(place):
    def change(recipe):
        recipe["stages"] = [{"stage": "task_distill", "max_steps": 3, "learning_rate": 7e-5, "temperature": 4.0}]

    context = context_of(place, change)
    training = training_on_labels(context)
    [method] = training.methods()
    assert (method.soft_weight, method.hard_weight) == (0.0, 1.0)
    assert (training.max_steps, training.learning_rate) == (3, 7e-5)
    ours, theirs = (stage.student(context).state_dict() for stage in (training, context.recipe.stages[0]))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_is_not_installed_is_left_out_unless_it_is_asked_for(place, capsys, monkeypatch):
    for package in ("model2vec", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "model2vec.train", raising=False)

    def change(recipe, **settings):
        with_rivals(recipe)
        recipe["stages"][-2] = {"stage": "rivals", **settings}

    context = context_of(place, change)
    made, left_out = context.recipe.stages[-2].chosen(context)
    assert made == ["bag_of_words", "frozen_encoder", "labels_alone"]
    assert left_out == [
        "static_embeddings without model2vec; allowed: after pip install 'edgemin-hf[rivals]' with transformers below "
        "5.4, as in constraints.txt",
        "openvino without OpenVINO; allowed: after pip install 'edgemin-hf[openvino]'",
    ]
    for name in ("static_embeddings", "openvino"):
        recipe = write_recipe(place, lambda recipe, name=name: change(recipe, rivals=[name]))
        assert main(["run", str(recipe), "--dry-run"]) == 2
        assert f"rivals: {name} without" in capsys.readouterr().err


def test_labels_alone_takes_the_arguments_of_any_training_on_the_task(place):
    stages = [
        {"stage": "prune", "head_sparsity": 0.5, "max_steps": 5, "learning_rate": 3e-4, "freeze_embeddings": True}
    ]
    training = training_on_labels(context_of(place, lambda recipe: recipe.update(stages=stages)))
    assert (training.stage, training.max_steps, training.learning_rate) == ("task_distill", 5, 3e-4)
    assert training.freeze_embeddings


@pytest.mark.parametrize(
    ("schedule", "kept"), [("constant_with_warmup", {}), ("constant", {}), ("cosine", {"lr_scheduler_type": "cosine"})]
)
def test_the_rate_of_labels_alone_falls_where_the_student_s_falls_in_a_later_stage(place, schedule, kept):
    arguments = {"lr_scheduler_type": schedule, "max_grad_norm": 0.5}
    stages = [{"stage": "prune", "head_sparsity": 0.5, "training_arguments": arguments}, {"stage": "quantize"}]
    training = training_on_labels(context_of(place, lambda recipe: recipe.update(stages=stages)))
    assert training.training_arguments == {"max_grad_norm": 0.5, **kept}


def test_rivals_that_all_come_later_are_one_line_before_the_run(place, capsys):
    def change(recipe):
        recipe["stages"] = [{"stage": "rivals", "rivals": ["labels_alone"]}]

    assert main(["rivals", str(write_recipe(place, change))]) == 2
    expected = "rivals: none that can be made here: labels_alone before there is a student; allowed: after the stage"
    assert expected in capsys.readouterr().err


def test_a_copy_of_the_teacher_has_no_rival_of_its_shape(place, capsys):
    def change(recipe):
        with_rivals(recipe)
        del recipe["student"]

    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert "rivals: labels_alone of a copy of the teacher" in capsys.readouterr().err


def test_what_makes_no_scores_is_refused(place, capsys):
    def change(recipe):
        recipe["stages"] = [{"stage": "rivals", "rivals": ["static_embeddings"]}]
        recipe["task"]["type"] = "regression"

    (place / "train.tsv").unlink()
    (place / "train.tsv").write_text("text\tlabel\n" + "".join(f"card {i}\t{i}\n" for i in range(40)))
    (place / "test.tsv").unlink()
    (place / "test.tsv").write_text("text\tlabel\n" + "".join(f"money {i}\t{i}\n" for i in range(10)))
    assert main(["run", str(write_recipe(place, change)), "--dry-run"]) == 2
    assert "rivals: static_embeddings for scores" in capsys.readouterr().err


@pytest.mark.parametrize("value", [[], ["guess"], "bag_of_words"])
def test_an_odd_list_is_one_line(place, capsys, value):
    assert main(["run", str(write_recipe(place, odd(value)))]) == 2
    assert "rivals" in capsys.readouterr().err


def odd(value):
    def change(recipe):
        recipe["stages"] = [{**CHEAP, "rivals": value}]

    return change
