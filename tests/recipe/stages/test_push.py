"""The stage `push`, its gate, and what a card takes over of the teacher's."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from edgemin_hf.benchmark.rows import Benchmark, BenchmarkRow, Latency
from edgemin_hf.cli import main
from edgemin_hf.recipe.plan import describe_plan, make_plan
from edgemin_hf.recipe.stages.card_metadata import card_metadata
from edgemin_hf.recipe.stages.gate import Gate
from edgemin_hf.recipe.stages.report import Report
from edgemin_hf.recipe.yaml_file import load_recipe
from edgemin_hf.tasks.metrics import metric_named
from edgemin_hf.utils.hardware import environment
from tests.helpers.hub_server import HubServer, with_hub
from tests.helpers.recipes import put, write_recipe

ROOT = Path(__file__).parents[3]
PUSH = {"stage": "push", "repo_id": "me/tiny", "private": True}


def with_push(change=lambda recipe: None, **settings):
    def both(recipe):
        change(recipe)
        recipe["stages"].append({**PUSH, **settings})

    return both


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (None, "push.repo_id: me/tiny without a token of the Hub; allowed: after `hf auth login` or with HF_TOKEN"),
        ("hf_wrong", "push.repo_id: me/tiny with a token that the Hub does not know; allowed: after `hf auth login`"),
    ],
)
def test_without_a_token_nothing_is_begun(place, monkeypatch, capsys, token, told):
    recipe = write_recipe(place, with_push())
    with HubServer("hf_right") as hub:
        with_hub(monkeypatch, hub, token)
        assert main(["run", str(recipe)]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert said.count("\n") == 1
        assert not (place / "run").exists()
        assert main(["run", str(recipe), "--dry-run"]) == 0  # which needs none
    assert "push: to me/tiny (private): README.md, edgemin.json and what it lists: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_push(repo_id="a/b/c"), "push.repo_id: a/b/c; allowed: a repository's id"),
        (with_push(tags=["v1", "a b"]), "push.tags: 'a b'; allowed: letters, digits"),
        (with_push(revision="-x"), "push.revision: '-x'; allowed: letters, digits"),
        (with_push(tags="v1"), "push.tags: .*; allowed: a valid array"),
        (with_push(colour="blue"), "push.colour: .*allowed: "),
        (lambda recipe: recipe["stages"].insert(3, PUSH), "push needs an artefact; expected before it: report"),
        (put("report.gate", {"retention": -1}), "report.gate.retention: -1; allowed: greater than 0"),
        (put("report.gate", {"speed": 1}), "gate.speed: 1; allowed: .*max_latency_ms"),
    ],
)
def test_what_can_not_be_is_told_before_the_run(place, change, told):
    recipe = write_recipe(place, change)
    with pytest.raises(ValueError, match=told):
        make_plan(load_recipe(recipe)[0], place)


def test_the_recipe_of_the_docs_is_one(place):
    told = re.search(r"```yaml\n(.*?)```", (ROOT / "docs/publishing.md").read_text(), re.DOTALL)[1]
    report, push = yaml.safe_load(told)["stages"]

    def change(recipe):
        recipe["stages"][-1:] = [report, push]

    *_, last = make_plan(load_recipe(write_recipe(place, change))[0], place)
    assert (last.stage.repo_id, last.stage.tags) == ("me/banking-edge", ["v1"])


def test_a_dry_run_says_what_has_changed_since(place):
    recipe = write_recipe(place, with_push())
    (place / "run/artefact").mkdir(parents=True)
    (place / "run/artefact/README.md").write_text("# Mine")
    plan = describe_plan(make_plan(load_recipe(recipe)[0], place, overwrite=True))
    assert "push: to me/tiny (private): not as it lies there now (" in plan
    assert "holds no edgemin.json" in plan


def row(model, runtime, precision, value, size, p50, **more):
    cost = {"parameters": 10, "size_bytes": size, "batch_size": 1, "threads": 1, "latency_ms": Latency(p50, p50, p50)}
    return BenchmarkRow(model, runtime, precision, "accuracy", value, None, 100, **cost, **more)


def test_the_gate_bounds_the_model_to_deploy():
    rows = (
        row("teacher", "pytorch", "fp32", 0.8, 90_000_000, 9.0),
        row("student", "onnxruntime", "fp32", 0.9, 50_000_000, 2.0),
        row("student", "onnxruntime", "int8", 0.6, 9_500_000, 1.5),
    )
    measured = Benchmark(rows, environment(threads=1))
    told = Gate(retention=0.8, max_latency_ms=1.5, max_size_mb=9).bounds(measured)
    assert {bound.name: (bound.measured, bound.missed) for bound in told} == {
        "retention": (pytest.approx(0.75), "retention: 0.75, which misses the 0.8 of the gate by 0.05"),
        "max_latency_ms": (1.5, None),
        "max_size_mb": (9.5, "max_size_mb: 9.5, which misses the 9 of the gate by 0.5"),
    }
    assert Gate().bounds(measured) == ()
    (alone,) = Gate(retention=0.8).bounds(Benchmark(rows[1:], environment(threads=1)))
    assert alone.measured is None


def test_what_can_not_be_kept_has_no_bound():
    report = Report(gate=Gate(retention=0.9))
    with pytest.raises(ValueError, match=r"gate.retention: 0.9 without teacher.model; allowed: beside a teacher"):
        report.check(SimpleNamespace(has_teacher=False, task=None))
    task = SimpleNamespace(metrics=[metric_named("mse")])
    with pytest.raises(ValueError, match=r"gate.retention: 0.9 of mse; allowed: "):
        report.check(SimpleNamespace(has_teacher=True, task=task))
    Report(gate=Gate(max_size_mb=1)).check(SimpleNamespace(has_teacher=False, task=None))


def test_a_card_takes_over_what_the_recipe_does_not_tell(place):
    (place / "teacher").unlink()  # a link to what other tests share
    told = {"license": "cc-by-4.0", "language": ["de", "fr"], "datasets": ["org/data"]}
    (place / "teacher").mkdir()
    (place / "teacher/README.md").write_text(f"---\n{yaml.safe_dump(told)}---\n")

    def asked(found, **settings):
        named = SimpleNamespace(model="org/bert", revision=None)
        recipe = SimpleNamespace(teacher=named, student=SimpleNamespace(checkpoint=None, revision=None))
        shapes = SimpleNamespace(checkpoint=lambda *_, **__: found)
        given = {"language": None, "licence": None, "datasets": None, **settings}
        return card_metadata(SimpleNamespace(recipe=recipe, shapes=shapes), **given)

    on_hub = SimpleNamespace(path=place / "teacher", is_folder=False)
    taken = asked(on_hub)
    assert (taken.base_model, taken.licence, taken.languages) == ("org/bert", "cc-by-4.0", ("de", "fr"))
    assert (taken.datasets, taken.teacher_datasets) == ([], ("org/data",))
    given = asked(on_hub, language="en", licence="mit", datasets=[])
    assert (given.licence, given.languages, given.datasets, given.teacher_datasets) == ("mit", ["en"], [], [])
    # A folder may have the form of an id of the Hub, and is not one.
    assert asked(SimpleNamespace(path=place / "teacher", is_folder=True)).base_model is None
    (place / "teacher/README.md").unlink()
    assert (asked(on_hub).licence, asked(on_hub).languages) == ("unknown", ())
