import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertModel

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.export.manifest import Manifest, read_manifest
from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.quantization.native import calibrate, prepare_qat
from tests.helpers.models import batch, tiny


def quantized(family="bert", **settings):
    model = tiny(family)
    prepare_qat(model, QuantizationConfig(**settings))
    calibrate(model, [batch(seed=0), batch(seed=1)], lambda inputs: model(**inputs))
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    return export_onnx(quantized(), tokenizer, tmp_path_factory.mktemp("manifest") / "out").folder


def test_it_lists_what_was_written_in_the_order_of_the_targets(exported):
    manifest = read_manifest(exported)
    assert (manifest.task, manifest.pipeline_tag) == ("text_classification", "text-classification")
    assert [(entry.file, entry.runtime, entry.precision) for entry in manifest.entries] == [
        ("model.safetensors", "pytorch", "fp32"),
        ("onnx/model.onnx", "onnxruntime", "fp32"),
        ("onnx/model_quantized.onnx", "onnxruntime", "int8"),
    ]
    checkpoint, fp32, int8 = manifest.entries
    assert checkpoint.parameters == tiny().num_parameters()
    assert (checkpoint.opset, checkpoint.ir_version, checkpoint.min_runtime) == (None, None, None)
    for entry in (fp32, int8):
        graph = onnx.load(exported / entry.file)
        assert (entry.opset, entry.ir_version) == (graph.opset_import[0].version, graph.ir_version)
        assert entry.fidelity.error <= entry.fidelity.limit
    assert (fp32.min_runtime, int8.min_runtime) == ("1.17", "1.17")


def test_bytes_and_hashes_are_those_of_the_files(exported):
    content = json.loads((exported / "edgemin.json").read_text())
    assert content["format"] == 1
    for entry in content["entries"]:
        data = (exported / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    read_manifest(exported).verify_files(exported)


def test_expected_outputs_are_what_each_runtime_gives(exported, tokenizer):
    manifest = read_manifest(exported)
    plain = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    for entry in manifest.entries:
        assert len(entry.outputs) == len(manifest.texts) > 1
        for text, expected in zip(manifest.texts, entry.outputs, strict=True):
            inputs = dict(tokenizer(text, truncation=True, return_tensors="np"))
            if entry.runtime == "pytorch":
                with torch.no_grad():
                    found = plain(**{name: torch.from_numpy(array) for name, array in inputs.items()}).logits.numpy()
            else:
                session = onnxruntime.InferenceSession(exported / entry.file)
                found = session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})[0]
            np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)


def test_a_graph_with_external_data_is_hashed_with_it(exported, tmp_path):
    manifest = read_manifest(exported)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(b"graph")
    (tmp_path / "onnx/model.onnx_data").write_bytes(b"weights")
    entry = replace(
        manifest.entries[1], external_data=("onnx/model.onnx_data",), bytes=12,
        sha256=hashlib.sha256(b"graphweights").hexdigest(),
    )  # fmt: skip
    manifest = replace(manifest, entries=(entry,))
    manifest.verify_files(tmp_path)
    assert manifest.files == ["onnx/model.onnx", "onnx/model.onnx_data"]
    (tmp_path / "onnx/model.onnx_data").write_bytes(b"weightz")
    with pytest.raises(ValueError, match=r"model\.onnx: has other bytes than edgemin\.json tells"):
        manifest.verify_files(tmp_path)
    (tmp_path / "onnx/model.onnx_data").unlink()
    with pytest.raises(ValueError, match=r"model\.onnx_data: is missing"):
        manifest.verify_files(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=2), r"edgemin\.json: format: 2; allowed: 1$"),
        (lambda content: content["entries"][1].pop("sha256"), r"edgemin\.json: entries\.1\.sha256: field required$"),
        (lambda content: content["entries"].append(content["entries"][0]), "entries: two of pytorch fp32"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(exported, tmp_path, change, message):
    content = json.loads((exported / "edgemin.json").read_text())
    change(content)
    (tmp_path / "edgemin.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)


def test_broken_json_and_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"holds no edgemin\.json; expected: "):
        read_manifest(tmp_path)
    (tmp_path / "edgemin.json").write_text("{")
    with pytest.raises(ValueError, match=r"edgemin\.json: "):
        read_manifest(tmp_path)


def test_reading_gives_back_what_was_written(exported, tmp_path):
    manifest = read_manifest(exported)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert Manifest.from_dict(manifest.to_dict()) == manifest


def test_a_model_without_a_head_has_no_logits_to_expect(tmp_path, tokenizer):
    made = export_onnx(BertModel(tiny().config), tokenizer, tmp_path / "out")
    assert made.manifest.pipeline_tag == "feature-extraction"
    assert [(entry.precision, entry.outputs) for entry in made.manifest.entries] == [("fp32", ()), ("fp32", ())]


def test_the_baseline_has_a_manifest_too(tmp_path, tokenizer):
    tiny().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    manifest = export_baseline(tmp_path / "model", tmp_path / "baseline")
    assert read_manifest(tmp_path / "baseline") == manifest
    manifest.verify_files(tmp_path / "baseline")
    assert [(entry.runtime, entry.precision) for entry in manifest.entries] == [
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"),
    ]  # fmt: skip
    assert all(entry.fidelity is None and entry.outputs for entry in manifest.entries)
    assert {Path(entry.file).parent.name for entry in manifest.entries} == {"onnx"}
