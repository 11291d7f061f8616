"""The second graph, in fewer nodes: the same numbers, by operators that ONNX Runtime alone has."""

import json
import shutil
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.cli import main
from edgemin_hf.export.fused_products import fuse_products
from edgemin_hf.export.fused_tables import fuse_tables
from edgemin_hf.export.graph import bytes_by_component, count_parameters
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.quantization.native import calibrate, prepare_qat
from edgemin_hf.runtime import load
from tests.helpers.models import batch, sentences, tiny

TEXTS = [text for text, _ in sentences(24, seed=7)]
INT8 = {"weights": "int8", "embeddings": "int4"}


def exported(folder, tokenizer, family="bert", **settings):
    model = tiny(family)
    remove(model, Selection([[0, 1], [3], [1, 2, 3]], [range(width) for width in (24, 64, 40)]))
    prepare_qat(model, QuantizationConfig(**{**INT8, **settings}))
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    calibrate(model, [batch(), inputs], lambda one: model(**one))
    return export_onnx(model.eval(), tokenizer, folder, texts=TEXTS, fused_attention=True).folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory, tokenizer):
    return exported(tmp_path_factory.mktemp("fused") / "out", tokenizer)


def logits(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
    return session.run(None, {node.name: feeds[node.name] for node in session.get_inputs()})[0]


def types(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def both(folder, name="quantized"):
    return [folder / f"onnx/model_{name}{fused}.onnx" for fused in ("", "_fused")]


def test_the_manifest_tells_the_two_apart(bert):
    manifest = read_manifest(bert)
    manifest.verify_files(bert)
    told = [(one.file, one.variant, one.opset, one.min_runtime) for one in manifest.entries[2:]]
    assert told == [
        ("onnx/model_quantized.onnx", "int8", 18, "1.17"),
        ("onnx/model_quantized_fused.onnx", "int8-fused", 23, "1.24"),
    ]
    plain, fused = manifest.entries[2:]
    assert (plain.precision, plain.parameters) == (fused.precision, fused.parameters)
    assert manifest.entry("onnxruntime", "int8-fused") == fused


def test_every_layer_is_one_node_with_its_bias(bert):
    plain, fused = both(bert)
    assert {node.domain for node in onnx.load(plain).graph.node} == {""}
    products = [node for node in onnx.load(fused).graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 3 * 6
    assert all(len(node.input) == 7 and node.input[6] for node in products)
    assert types(fused)["Attention"] == 3
    assert types(fused)["GatherBlockQuantized"] == 2
    assert types(fused)["BitShift"] == 0
    assert types(plain)["BitShift"] == 2
    # What is still added apart: positions and types, each layer's inputs (2) and GELU's 1, the biases of the head.
    assert types(fused)["Add"] == 2 + 3 * (2 + 1) + 2


@pytest.mark.parametrize("family", ["bert", "mpnet", "modernbert", "deberta"])
def test_it_computes_the_same(family, bert, tmp_path, tokenizer):
    folder = bert if family == "bert" else exported(tmp_path / "out", tokenizer, family)
    plain, fused = both(folder)
    for inputs in (batch((9, 3, 6)), batch((5, 7), side="left", pad_to=12), batch((4,))):
        np.testing.assert_allclose(logits(fused, inputs), logits(plain, inputs), rtol=1e-5, atol=1e-6)
    # That attention stays as it is, and so the version of the operators; DeBERTa's graph has branches (If).
    stays = family in ("modernbert", "deberta")
    assert read_manifest(folder).entries[-1].min_runtime == ("1.23" if stays else "1.24")


def test_parameters_and_bytes_are_told_alike(bert):
    plain, fused = both(bert)
    assert count_parameters(plain) == count_parameters(fused)
    sizes = [bytes_by_component(path) for path in (plain, fused)]
    assert sizes[0]["word embeddings"] == pytest.approx(sizes[1]["word embeddings"], abs=64)
    assert sizes[0]["attention"] == sizes[1]["attention"]


def test_groups_that_fill_no_row_are_stored_in_smaller_ones(tmp_path, tokenizer):
    """Rows of 32 numbers in groups of 64."""
    plain, fused = both(exported(tmp_path / "out", tokenizer, group_size=64))
    np.testing.assert_allclose(logits(fused, batch()), logits(plain, batch()), rtol=1e-5, atol=1e-6)


def test_a_graph_without_either_stays(float_graph):
    before = onnx.load(float_graph("bert")[1])
    content = before.SerializeToString()
    assert fuse_tables(fuse_products(before)).SerializeToString() == content


def test_the_runtime_takes_it_where_it_can(bert, tmp_path, monkeypatch):
    assert load(bert).file.variant == "int8-fused"
    assert load(bert, "model_quantized.onnx").file.variant == "int8"
    monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
    assert load(bert).file.variant == "int8"
    folder = shutil.copytree(bert, tmp_path / "older")
    content = json.loads((folder / "edgemin.json").read_text())
    content["entries"].pop()  # as earlier versions wrote it
    (folder / "edgemin.json").write_text(json.dumps(content))
    assert load(folder).file.variant == "int8"
    assert read_manifest(folder).entries[-1].variant == "int8"


def test_int4_has_one_too(tmp_path, tokenizer):
    folder = exported(tmp_path / "out", tokenizer, weights="int4")
    plain, fused = both(folder, "q4")
    np.testing.assert_allclose(logits(fused, batch()), logits(plain, batch()), rtol=1e-5, atol=1e-6)
    assert [entry.min_runtime for entry in read_manifest(folder).entries[2:]] == ["1.17", "1.24"]


def test_of_a_graph_with_nothing_to_fuse_there_is_no_second_one(tmp_path, tokenizer):
    """ModernBERT's attention stays as it is, INT4's products have no biases within, and tables are in INT8."""
    folder = exported(tmp_path / "out", tokenizer, "modernbert", weights="int4", embeddings="int8")
    assert [entry.variant for entry in read_manifest(folder).entries] == ["fp32", "fp32", "int4"]
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == ["model.onnx", "model_q4.onnx"]


def test_every_graph_is_verified(bert, tmp_path, capsys):
    assert main(["verify", str(bert)]) == 0
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(told) == [f"onnx/model{name}.onnx" for name in ("", "_quantized", "_quantized_fused")]
    assert main(["verify", str(bert), "--graph", "onnx/model.onnx"]) == 0
    assert capsys.readouterr().out.count("\n") == 1
    broken = shutil.copytree(bert, tmp_path / "broken")
    graph = onnx.load(broken / "onnx/model.onnx")
    (bias,) = (one for one in graph.graph.initializer if one.name == "classifier.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(9 + onnx.numpy_helper.to_array(bias), bias.name))
    onnx.save(graph, broken / "onnx/model.onnx")
    assert main(["verify", str(broken)]) == 1
    assert "onnx/model.onnx: outputs differ" in capsys.readouterr().err


def test_nothing_is_fused_of_a_model_that_is_not_quantised(tmp_path, tokenizer):
    made = export_onnx(tiny(), tokenizer, tmp_path / "out", texts=TEXTS, fused_attention=True)
    assert [entry.variant for entry in made.manifest.entries] == ["fp32", "fp32"]
