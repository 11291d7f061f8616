from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification, BertForTokenClassification

from edgemin_hf.benchmark import artefact
from edgemin_hf.benchmark.measure import ModelFile, benchmark_rows, files_of, in_openvino, measure_latency
from edgemin_hf.benchmark.rows import Latency, Score
from edgemin_hf.benchmark.runners import PyTorchRunner, load_runner
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.export.onnx import export_baseline, export_onnx
from tests.helpers.models import batch, tiny

INPUTS = {name: tensor.numpy() for name, tensor in batch((7,)).items()}


def test_the_checkpoint_of_another_head_is_run_by_its_class(tmp_path):
    model = BertForTokenClassification(tiny().config).eval()
    model.save_pretrained(tmp_path)
    runner = load_runner("pytorch", tmp_path / "model.safetensors", 1, AutoModelForTokenClassification)
    found = runner.run(runner.prepare(INPUTS))
    with torch.no_grad():
        expected = model(**batch((7,))).logits
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert found.shape == (1, 7, 3)


def test_graph_and_checkpoint_answer_alike(tmp_path, tokenizer):
    export_onnx(tiny(), tokenizer, tmp_path / "out")
    inputs = {**INPUTS, "token_type_ids": np.zeros_like(INPUTS["input_ids"])}
    runners = {row: load_runner(row[1], file.path, 1) for row, file in files_of("student", tmp_path / "out").items()}
    assert list(runners) == [("student", "pytorch", "fp32"), ("student", "onnxruntime", "fp32")]
    ours, theirs = (runner.run(runner.prepare(inputs)) for runner in runners.values())
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    times = measure_latency(runners, dict.fromkeys(runners, [inputs] * 3), rounds=2)
    assert {row: values.shape for row, values in times.items()} == dict.fromkeys(runners, (6,))


def test_a_runtime_without_a_runner_is_named(tmp_path):
    with pytest.raises(ValueError, match="runtime: coreml; allowed: pytorch, onnxruntime, openvino"):
        load_runner("coreml", tmp_path / "model", 1)


def test_the_teachers_checkpoint_lies_elsewhere(tmp_path, tokenizer):
    tiny().save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    export_baseline(tmp_path / "teacher", tmp_path / "graphs")
    files = files_of("teacher", tmp_path / "graphs", tmp_path / "teacher")
    assert [row[1:] for row in files] == [("pytorch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    checkpoint = files["teacher", "pytorch", "fp32"]
    assert checkpoint.path == tmp_path / "teacher/model.safetensors"
    assert checkpoint.parameters == PyTorchRunner(tmp_path / "teacher", 1).model.num_parameters()
    (tmp_path / "graphs/onnx/model.onnx").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"model\.onnx: has other bytes"):
        files_of("teacher", tmp_path / "graphs")


def test_openvino_runs_the_graphs_that_it_has_no_file_for(tmp_path):
    graph, own = ModelFile(tmp_path / "a.onnx", 10, 2), ModelFile(tmp_path / "a.xml", 11, 2)
    files = {("s", "pytorch", "fp32"): graph, ("s", "onnxruntime", "fp32"): graph, ("s", "onnxruntime", "int8"): graph}
    assert in_openvino(files) == {("s", "openvino", "fp32"): graph, ("s", "openvino", "int8"): graph}
    assert in_openvino(files | {("s", "openvino", "fp32"): own}) == {("s", "openvino", "int8"): graph}


def test_a_graph_of_openvinos_own_is_left_out_where_that_is_not_installed(tmp_path, tokenizer, monkeypatch):
    export_onnx(tiny(), tokenizer, tmp_path / "edge", texts=["card"])
    manifest = read_manifest(tmp_path / "edge")
    own = replace(manifest.entries[-1], runtime="openvino")
    replace(manifest, entries=(*manifest.entries, own)).write(tmp_path / "edge")
    monkeypatch.setattr(artefact, "find_spec", lambda name: None)
    found = artefact.benchmark_artefact(tmp_path / "edge", None, None, threads=1, rounds=1)
    assert [row.runtime for row in found.rows] == ["pytorch", "onnxruntime"]
    assert "openvino" not in found.environment.packages


def test_rows_hold_percentiles_and_what_was_scored(tmp_path):
    row = ("student", "onnxruntime", "int8")
    files, times = {row: ModelFile(tmp_path / "a.onnx", 10, 2)}, {row: np.arange(101.0)}
    (measured,) = benchmark_rows(files, times, 3)
    assert (measured.latency_ms, measured.score) == (Latency(50, 90, 99), None)
    assert (measured.size_bytes, measured.parameters, measured.threads, measured.batch_size) == (10, 2, 3, 1)
    # What was not measured stands there as null.
    assert measured.to_dict()["value"] is None
    score = Score("accuracy", 0.5, (0.4, 0.6), 8)
    (measured,) = benchmark_rows(files, times, 3, {row: score})
    assert measured.score == score
    assert measured.label == "student · onnxruntime · int8"
