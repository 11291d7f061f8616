"""A machine that computes nonsense is found out."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from transformers import AutoModelForTokenClassification

from edgemin_hf import export_onnx
from edgemin_hf.cli import main
from edgemin_hf.runtime import VerificationError, load, verify
from tests.helpers.models import tiny
from tests.runtime.conftest import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_every_task_verifies(made, name):
    assert verify(load(made(name)[1], verify=True)) < 1e-4


def test_a_model_with_more_tags_than_the_manifest_holds_verifies(tmp_path, tokenizer):
    tags = {number: f"B-{number}" for number in range(70)}
    model = tiny(head=AutoModelForTokenClassification, id2label=tags, label2id={tag: one for one, tag in tags.items()})
    export_onnx(model, tokenizer, tmp_path / "edge", texts=["card"], max_length=40)
    assert verify(load(tmp_path / "edge")) < 1e-4


@pytest.fixture
def broken(made, tmp_path):
    """An artefact of which one matrix has its signs turned."""
    folder = shutil.copytree(made("text_classification")[1], tmp_path / "edge")
    graph = onnx.load(folder / "onnx/model.onnx")
    weights = next(one for one in graph.graph.initializer if len(one.dims) == 2 and one.dims[0] == one.dims[1] == 32)
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    onnx.save(graph, folder / "onnx/model.onnx")
    return folder


def test_nonsense_is_one_line_and_exit_code_1(broken, made, capsys):
    with pytest.raises(VerificationError, match=r"outputs differ from those of edgemin\.json by .* of 0\.001 allowed"):
        load(broken, verify=True)
    assert main(["verify", str(broken)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["verify", str(made("text_classification")[1])]) == 0
    assert "onnx/model.onnx: computes what" in capsys.readouterr().out


def test_not_a_number_and_other_shapes_are_nonsense(made, tmp_path):
    folder = shutil.copytree(made("text_classification")[1], tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    for outputs, told in (([[np.nan] * 3] * 4, "by inf"), ([[0.0] * 2] * 4, r"outputs \(3,\) of .*expected \(2,\)")):
        manifest["entries"][-1]["outputs"] = outputs
        (folder / "edgemin.json").write_text(json.dumps(manifest))
        with pytest.raises(VerificationError, match=told):
            load(folder, verify=True)
    manifest["entries"][-1]["outputs"] = []
    (folder / "edgemin.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"no outputs of onnx/model\.onnx to compare with"):
        load(folder, verify=True)
