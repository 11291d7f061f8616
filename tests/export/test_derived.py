"""A graph of one shape for NPUs, and OpenVINO's own format: made of the graph that was checked, and listed."""

import numpy as np
import onnx
import pytest

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.benchmark.measure import files_of
from edgemin_hf.benchmark.runners import OpenVinoRunner
from edgemin_hf.export import derived
from edgemin_hf.export.fidelity import FidelityError
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.runtime import load
from tests.helpers.models import batch, sentences, tiny

TEXTS = [text for text, _ in sentences(24, seed=7)]


def quantized(tokenizer, family="roberta", **settings):
    """RoBERTa counts positions by the padding's id: one that is filled up with another id answers otherwise."""
    model = tiny(family, **settings)
    prepare_qat(model, QuantizationConfig())
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    calibrate(model, [batch(), inputs], lambda one: model(**one))
    return model.eval()


@pytest.mark.parametrize("shape", [(1, 16), (3, 32)])
def test_a_graph_of_one_shape_answers_as_the_other_does(shape, tmp_path, tokenizer):
    folder = export_onnx(quantized(tokenizer), tokenizer, tmp_path / "out", texts=TEXTS, fixed_shape=shape).folder
    manifest = read_manifest(folder)
    manifest.verify_files(folder)
    entry = manifest.entries[-1]
    assert (entry.file, entry.variant) == (
        f"onnx/model_quantized_{shape[0]}x{shape[1]}.onnx", f"int8-{shape[0]}x{shape[1]}",
    )  # fmt: skip
    graph = onnx.load(folder / entry.file).graph
    sizes = {tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in graph.input}
    assert sizes == {shape}
    assert load(folder).file.shape is None, "it is taken where it is named alone"
    fixed, free = load(folder, entry.file, verify=True), load(folder)
    texts = [text for text in TEXTS if len(free.reader.read(text)) <= shape[1]]
    np.testing.assert_allclose(fixed.predict_proba(texts), free.predict_proba(texts), atol=0.02)
    np.testing.assert_allclose(fixed.predict_proba(texts[0]), free.predict_proba(texts[0]), atol=0.02)
    assert fixed.predict_proba("long " * 100).shape == (3,), "a longer text is cut"
    assert all(path.path.name != entry.file for path in files_of("student", folder).values())


@pytest.mark.parametrize("shape", [(0, 16), (1, 9), (1, 65)])
def test_a_shape_that_can_not_be(shape, tmp_path, tokenizer):
    with pytest.raises(ValueError, match=r"batch, length: .*; allowed: 1 or more, 10 to 64"):
        export_onnx(tiny(), tokenizer, tmp_path / "out", fixed_shape=shape)
    assert not (tmp_path / "out").exists()


def test_what_lies_beside_a_graph_too_large_for_one_file_serves_both(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 10_000)
    folder = export_onnx(tiny(), tokenizer, tmp_path / "out", texts=TEXTS, fixed_shape=(1, 16)).folder
    read_manifest(folder).verify_files(folder)
    whole, fixed = read_manifest(folder).entries[1:]
    assert fixed.files == ("onnx/model_1x16.onnx", "onnx/model.onnx_data")
    assert fixed.bytes == pytest.approx(whole.bytes, rel=0.01)
    assert (folder / fixed.file).stat().st_size < whole.bytes / 2
    assert load(folder, fixed.file, verify=True).predict_proba(TEXTS).shape == (len(TEXTS), 3)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path, tokenizer, monkeypatch):
    def wrong(graph, *_):
        scale = next(one for one in graph.graph.initializer if one.name.endswith("weight_scale"))
        scale.CopyFrom(onnx.numpy_helper.from_array(9 * onnx.numpy_helper.to_array(scale), scale.name))

    monkeypatch.setattr(derived, "fix_shape", wrong)
    with pytest.raises(FidelityError, match=r"model_quantized_1x16\.onnx differs from onnx/model_quantized\.onnx by"):
        export_onnx(quantized(tokenizer), tokenizer, tmp_path / "out", texts=TEXTS, fixed_shape=(1, 16))
    assert not (tmp_path / "out").exists()


def test_openvino_has_a_format_of_its_own(tmp_path, tokenizer):
    pytest.importorskip("openvino")
    further = {"openvino": True, "fixed_shape": (1, 10)}
    folder = export_onnx(quantized(tokenizer), tokenizer, tmp_path / "out", texts=TEXTS, **further).folder
    manifest = read_manifest(folder)
    manifest.verify_files(folder)
    entry = manifest.entries[-1]
    assert (entry.runtime, entry.precision, entry.opset) == ("openvino", "int8", None)
    assert entry.files == ("openvino/openvino_model.xml", "openvino/openvino_model.bin")
    expected = np.array(manifest.entry("onnxruntime", "int8").outputs)
    assert np.abs(np.array(entry.outputs) - expected).mean() < 0.1 * np.abs(expected).mean(), "texts are not cut"
    runner, free = OpenVinoRunner(folder / entry.file, threads=1), load(folder)
    found = [runner.run(runner.prepare(free.reader.arrays(free.reader.read(text))))[0] for text in TEXTS]
    expected = free.outputs(free.reader.read_all(TEXTS))
    assert np.abs(np.array(found) - expected).mean() < 0.1 * np.abs(expected).mean()
