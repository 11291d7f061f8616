import json

import numpy as np
import pytest
from conftest import batch, sentences, tiny

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.benchmark import artefact
from edgemin_hf.benchmark.report import summary_table
from edgemin_hf.benchmark.runners import OnnxRunner, OpenVinoRunner
from edgemin_hf.cli import main
from edgemin_hf.export.onnx import FP32_GRAPH, INT8_GRAPH
from edgemin_hf.quantization.native import calibrate, prepare_qat

TEXTS = [text for text, _ in sentences(16, seed=7)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    pytest.importorskip("openvino")
    model = tiny()
    prepare_qat(model, QuantizationConfig())
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    calibrate(model, [batch(seed=0), inputs], lambda one: model(**one))
    return export_onnx(model, tokenizer, tmp_path_factory.mktemp("openvino") / "out", texts=TEXTS).folder


def logits(runner, tokenizer):
    encoded = [dict(tokenizer(text, return_tensors="np")) for text in TEXTS]
    return np.concatenate([runner.run(runner.prepare(inputs)) for inputs in encoded])


def test_the_float_graph_computes_the_same(exported, tokenizer):
    graph = exported / FP32_GRAPH
    found, expected = (logits(runner(graph, 1), tokenizer) for runner in (OpenVinoRunner, OnnxRunner))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_int8_graph_computes_the_same_to_the_noise_of_its_grids(exported, tokenizer):
    graph = exported / INT8_GRAPH
    found, expected = (logits(runner(graph, 1), tokenizer) for runner in (OpenVinoRunner, OnnxRunner))
    noise = np.abs(expected - logits(OnnxRunner(exported / FP32_GRAPH, 1), tokenizer)).mean()
    assert np.abs(found - expected).mean() < 0.5 * noise


def test_the_benchmark_runs_the_graphs_in_openvino_too(exported, capsys, tmp_path):
    arguments = ["benchmark", str(exported), "--threads", "1", "--rounds", "1", "--output", str(tmp_path / "rows.json")]
    assert main([*arguments, "--openvino"]) == 0
    assert capsys.readouterr().out.count("openvino") == 2
    benchmark = json.loads((tmp_path / "rows.json").read_text())
    rows = {(row["runtime"], row["precision"]): row for row in benchmark["rows"]}
    assert list(rows)[-2:] == [("openvino", "fp32"), ("openvino", "int8")]
    for precision in ("fp32", "int8"):
        for same in ("size_bytes", "parameters", "threads"):
            assert rows["openvino", precision][same] == rows["onnxruntime", precision][same]
    assert benchmark["environment"]["packages"]["openvino"]
    assert summary_table(benchmark)


def test_without_openvino(monkeypatch, tmp_path):
    monkeypatch.setattr(artefact, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--openvino, whose package is missing; allowed: after `pip install"):
        artefact.benchmark_artefact(tmp_path, None, None, threads=1, rounds=1, openvino=True)
