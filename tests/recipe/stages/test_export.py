import re

import pytest

import edgemin_hf.hub.push as push
from edgemin_hf.cli import main
from edgemin_hf.recipe import Context, load_recipe
from edgemin_hf.recipe.stages.evaluate import wants_openvino
from tests.helpers.recipes import only, put, write_recipe
from tests.helpers.tasks import read_json, run_snippets

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def unquantised(workplace, tmp_path_factory):
    """A run that exports what was not quantised."""
    root = tmp_path_factory.mktemp("plain")
    for path in workplace.iterdir():
        (root / path.name).symlink_to(path)

    def change(recipe):
        put("report.repo_id", str(root / "run/artefact"))(recipe)
        report = recipe["stages"][-1]
        only("finetune", "task_distill", "export", "evaluate", "benchmark")(recipe)
        recipe["stages"].append(report)

    assert main(["run", str(write_recipe(root, change))]) == 0
    return root / "run/artefact"


def test_an_artefact_need_not_be_quantised(unquantised):
    assert [file.name for file in (unquantised / "onnx").iterdir()] == ["model.onnx"]
    rows = read_json(unquantised / "benchmark.json")["rows"]
    student = [(row["runtime"], row["precision"]) for row in rows if row["model"] == "student"]
    assert student == [("pytorch", "fp32"), ("onnxruntime", "fp32")]


def test_its_card_and_report_speak_of_full_precision(unquantised, monkeypatch):
    card = (unquantised / "README.md").read_text()
    # The teacher's INT8 graph is beside it, to compare with.
    compared = "The teacher's int8 row is .*|^\\| teacher .*|in ONNX Runtime \\(int8\\)"
    told = re.sub(compared, "", card, flags=re.MULTILINE)
    found = re.search("int8|8-bit|4 bits|quantis|model_quantized", told.split("<details>")[0])
    assert found is None, found[0]
    assert "The student at fp32 in ONNX Runtime takes" in card
    front = card.split("\n---\n")[0]
    assert "- fp32" in front
    assert "value: " in front  # what was measured of it
    assert "The student at fp32 in ONNX Runtime takes" in (unquantised / "report.html").read_text()
    answers = [re.search("card_problem|transfer", answer)[0] for answer in run_snippets(card, monkeypatch)]
    assert len(answers) == 3
    assert len(set(answers)) == 1


@pytest.mark.parametrize("stage", ["export", "benchmark"])
def test_the_stage_benchmark_alone_has_all_graphs_run_in_openvino(place, stage):
    recipe, settings = load_recipe(write_recipe(place, put(f"{stage}.openvino", True)))
    assert wants_openvino(Context(recipe, settings, place, place / "run")) == (stage == "benchmark")


def test_it_is_measured_again_and_pushed(unquantised, capsys, monkeypatch):
    assert main(["benchmark", str(unquantised), "--rounds", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "student  onnxruntime  fp32" in out
    assert "int8" not in out
    monkeypatch.delattr(push, "HfApi")
    with pytest.raises(NameError, match="HfApi"):  # gets as far as the Hub
        push.push_artefact(unquantised, "me/fp32")
