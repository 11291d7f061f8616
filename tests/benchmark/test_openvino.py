import json
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.benchmark.runners import OnnxRunner, OpenVinoRunner
from edgemin_hf.cli import main
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.export.onnx_quantized import INT4_GRAPH, INT8_GRAPH
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.report.page import summary_table
from edgemin_hf.utils import extras
from tests.helpers.models import batch, sentences, tiny
from tests.helpers.recipes import put, write_recipe

TEXTS = [text for text, _ in sentences(16, seed=7)]


def export(folder, tokenizer, config):
    pytest.importorskip("openvino")
    model = tiny()
    prepare_qat(model, config)
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    calibrate(model, [batch(seed=0), inputs], lambda one: model(**one))
    made = export_onnx(model, tokenizer, folder, texts=TEXTS).folder
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    return export(tmp_path_factory.mktemp("openvino") / "out", tokenizer, QuantizationConfig())


def logits(runner, tokenizer):
    encoded = [dict(tokenizer(text, return_tensors="np")) for text in TEXTS]
    return np.concatenate([runner.run(runner.prepare(inputs)) for inputs in encoded])


def int8_noise(exported, tokenizer):
    """What quantisation itself changes: the mean difference of the INT8 graph's logits from the float graph's."""
    quantized, whole = (logits(OnnxRunner(exported / graph, 1), tokenizer) for graph in (INT8_GRAPH, FP32_GRAPH))
    return np.abs(quantized - whole).mean()


def test_the_float_graph_computes_the_same(exported, tokenizer):
    graph = exported / FP32_GRAPH
    found, expected = (logits(runner(graph, 1), tokenizer) for runner in (OpenVinoRunner, OnnxRunner))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_int8_graph_computes_the_same_to_the_noise_of_its_grids(exported, tokenizer):
    graph = exported / INT8_GRAPH
    found, expected = (logits(runner(graph, 1), tokenizer) for runner in (OpenVinoRunner, OnnxRunner))
    assert np.abs(found - expected).mean() < 0.5 * int8_noise(exported, tokenizer)


def test_the_int4_graph_computes_the_same(tmp_path, tokenizer):
    graph = export(tmp_path / "out", tokenizer, QuantizationConfig("int4", "int4")) / INT4_GRAPH
    found, expected = (logits(runner(graph, 1), tokenizer) for runner in (OpenVinoRunner, OnnxRunner))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_all_linear_layers_run_in_integers(exported):
    model = OpenVinoRunner(exported / INT8_GRAPH, 1).graph.request.get_compiled_model().get_runtime_model()
    kinds = Counter()
    for node in model.get_ops():
        if node.get_rt_info()["layerType"].astype(str) == "FullyConnected":
            kinds[tuple(node.input(place).get_element_type().get_type_name() for place in (0, 1))] += 1
    # Six a layer, the pooler and the classifier; the pooler's tanh may be fed to the classifier as int8.
    assert kinds.total() == 3 * 6 + 2
    assert set(kinds) <= {("u8", "i8"), ("i8", "i8")}


@pytest.mark.parametrize("graph", [FP32_GRAPH, INT8_GRAPH])
def test_optimum_intel_loads_the_graphs_as_they_are(exported, tokenizer, graph):
    pytest.importorskip("openvino")
    pytest.importorskip("optimum.intel")
    from optimum.intel import OVModelForSequenceClassification

    folder, name = graph.split("/")
    model = OVModelForSequenceClassification.from_pretrained(
        exported, subfolder=folder, file_name=name, from_onnx=True, ov_config={"INFERENCE_PRECISION_HINT": "f32"}
    )
    encoded = [tokenizer(text, return_tensors="pt") for text in TEXTS]
    found = np.concatenate([model(**inputs).logits.numpy() for inputs in encoded])
    expected = logits(OnnxRunner(exported / graph, 1), tokenizer)
    assert model.config.num_labels == found.shape[1]
    if graph == FP32_GRAPH:
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    else:
        assert np.abs(found - expected).mean() < 0.5 * int8_noise(exported, tokenizer)


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
    assert summary_table(Benchmark.from_dict(benchmark))


def test_a_recipe_measures_openvino_too(place):
    pytest.importorskip("openvino")

    def short(recipe):
        recipe["stages"] = [stage for stage in recipe["stages"] if stage["stage"] not in ("distill", "prune")]

    def with_openvino(recipe):
        put("benchmark.openvino", True)(recipe)
        short(recipe)

    # What was evaluated without OpenVINO is evaluated again, and nothing is trained again.
    assert main(["run", str(write_recipe(place, short))]) == 0
    trained = (place / "run/quantize/model.safetensors").stat().st_mtime_ns
    assert main(["run", str(write_recipe(place, with_openvino)), "--overwrite"]) == 0
    assert (place / "run/quantize/model.safetensors").stat().st_mtime_ns == trained
    artefact = place / "run/artefact"
    benchmark = json.loads((artefact / "benchmark.json").read_text())
    rows = {(row["model"], row["runtime"], row["precision"]): row for row in benchmark["rows"]}
    for model in ("teacher", "student"):
        for precision in ("fp32", "int8"):
            row = rows[model, "openvino", precision]
            assert row["n"] == 40
            assert row["latency_ms"]["p50"] > 0
            assert row["size_bytes"] == rows[model, "onnxruntime", precision]["size_bytes"]
        # Predictions may differ by a rounding where two labels are even: by a text of 40 at most.
        same = (rows[model, runtime, "fp32"]["value"] for runtime in ("openvino", "onnxruntime"))
        assert abs(next(same) - next(same)) <= 1 / 40
    assert len(rows) == 10
    assert benchmark["environment"]["packages"]["openvino"]
    card = (artefact / "README.md").read_text()
    assert card.count("| openvino |") == 4
    assert (artefact / "report.html").read_text().count(">openvino<") == 4


def test_without_openvino(monkeypatch, tmp_path, place, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in ("openvino", "nncf") else find_spec(name))
    assert main(["benchmark", str(tmp_path), "--openvino"]) == 2
    assert "--openvino without OpenVINO; allowed: after pip install" in capsys.readouterr().err
    assert main(["run", str(write_recipe(place, put("benchmark.openvino", True)))]) == 2
    assert "benchmark.openvino: true without OpenVINO; allowed: after pip install" in capsys.readouterr().err
    assert not (place / "run").exists()
