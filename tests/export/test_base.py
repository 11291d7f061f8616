"""The seam of the targets: one that is added shows up everywhere, by the manifest alone."""

import shutil
from dataclasses import replace

import pytest

from edgemin_hf import export_onnx
from edgemin_hf.benchmark.artefact import benchmark_artefact
from edgemin_hf.benchmark.measure import files_of
from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.export import onnx as export
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_graph import onnx_entry
from edgemin_hf.hub import push
from edgemin_hf.report.card import render_card
from edgemin_hf.report.card_facts import CardFacts
from edgemin_hf.report.page import summary_table
from edgemin_hf.report.records import StageRecord
from tests.helpers.hub_server import HubServer, with_hub
from tests.helpers.models import tiny


class AddedTarget:
    """Another file of the same graph, under a precision that no built-in target has."""

    def write(self, trained, folder):
        file = "elsewhere/copy.onnx"
        (folder / file).parent.mkdir()
        shutil.copy(folder / FP32_GRAPH, folder / file)
        return (onnx_entry(folder, file, "fp16", trained.tokenizer),)


@pytest.fixture
def artefact(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(export, "TARGETS", (*export.TARGETS, AddedTarget()))
    return export_onnx(tiny(), tokenizer, tmp_path / "artefact")


def test_an_added_target_is_measured_told_and_pushed(artefact, monkeypatch):
    folder = artefact.folder
    measured = benchmark_artefact(folder, None, None, threads=1, rounds=1)
    assert [(row.runtime, row.precision) for row in measured.rows] == [
        ("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16"),
    ]  # fmt: skip
    assert measured.rows[2].size_bytes == (folder / "elsewhere/copy.onnx").stat().st_size
    assert "student  onnxruntime  fp16" in summary_table(measured)

    scored = tuple(replace(row, metric="accuracy", value=0.9, ci95=(0.8, 1.0), n=10) for row in measured.rows)
    facts = CardFacts(
        name="Added", repo_id="me/added", manifest=artefact.manifest, languages=["en"], licence="mit",
        base_model="org/teacher", datasets=[], test_set="some rows", attribution="Someone's.", example="a card",
        max_length=16, benchmark=Benchmark(scored, measured.environment), stages=[StageRecord("finetune", True)],
        recipe_yaml="seed: 0",
    )  # fmt: skip
    card = render_card(facts)
    assert "| student | onnxruntime | fp16 |" in card

    (folder / "README.md").write_text(card)
    with HubServer("hf_token") as hub:
        with_hub(monkeypatch, hub, "hf_token")
        push.push_artefact(folder, "me/added")
    assert {"README.md", "elsewhere/copy.onnx", "onnx/model.onnx"} < set(hub.repos["me/added"].files)
    (folder / "elsewhere/copy.onnx").unlink()
    with pytest.raises(ValueError, match=r"lacks elsewhere/copy\.onnx$"):
        push.push_artefact(folder, "me/added")
    with pytest.raises(ValueError, match=r"copy\.onnx: is missing"):
        files_of("student", folder)
