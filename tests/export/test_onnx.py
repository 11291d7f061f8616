import json
import logging
from collections import Counter
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantFormat, QuantType
from tokenizers import Tokenizer
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from edgemin_hf import QuantizationConfig, export_onnx, load_pruned
from edgemin_hf.export.fidelity import FidelityError, check_fidelity
from edgemin_hf.export.graph import count_parameters, optimized_graph, quantized_nodes
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.pruned_shape import reloads_plainly
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.quantization.native import calibrate, fake_quantized_linears, prepare_qat
from tests.helpers.models import FAMILIES, batch, sentences, tiny
from tests.helpers.optimum import ORTConfig, ORTModelForSequenceClassification, pipeline

TEXTS = [text for text, _ in sentences(24, seed=7)]


def trained(family="bert", tokenizer=None, head=None):
    """A pruned and calibrated model, as quantisation-aware training leaves it."""
    model = tiny(family, head=head)
    blocks = len(Encoder(model).blocks)
    widths = [32, 32, 32] if family == "bert" else [24, 64, 40]
    remove(model, Selection([[0, 1], [3], [1, 2, 3]][:blocks], [range(width) for width in widths[:blocks]]))
    prepare_qat(model, QuantizationConfig())
    batches = [batch(seed=seed) for seed in range(4)]
    if tokenizer is not None:
        batches.append(dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)))
    calibrate(model, batches, lambda inputs: model(**inputs))
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("export") / "out"
    model = trained(tokenizer=tokenizer)
    return model, export_onnx(model, tokenizer, folder, texts=TEXTS)


def reference(model, tokenizer):
    with torch.no_grad():
        encoded = [tokenizer(text, return_tensors="pt") for text in TEXTS]
        return torch.cat([model(**inputs).logits for inputs in encoded]).numpy()


def test_the_int8_graph_computes_what_was_trained(exported, tokenizer):
    model, made = exported
    assert made.int8.error <= made.int8.limit
    session = onnxruntime.InferenceSession(made.folder / "onnx/model_quantized.onnx")
    names = [node.name for node in session.get_inputs()]
    logits = [session.run(None, {n: dict(tokenizer(t, return_tensors="np"))[n] for n in names})[0] for t in TEXTS]
    expected = reference(model, tokenizer)
    assert np.abs(np.concatenate(logits) - expected).mean() < 0.01 * expected.std()


def test_it_loads_with_an_optimum_pipeline(exported, tokenizer):
    model, made = exported
    int8 = ORTModelForSequenceClassification.from_pretrained(
        made.folder, subfolder="onnx", file_name="model_quantized.onnx"
    )
    answers = pipeline("text-classification", model=int8, tokenizer=tokenizer, accelerator="ort")(TEXTS)
    expected = reference(model, tokenizer).argmax(axis=-1)
    labels = [model.config.id2label[int(index)] for index in expected]
    assert np.mean([answer["label"] == label for answer, label in zip(answers, labels, strict=True)]) > 0.9
    plain = pipeline("text-classification", model=str(made.folder), accelerator="ort")
    assert plain(TEXTS[0])[0]["label"] in labels


def test_it_loads_with_plain_onnxruntime_and_tokenizers(exported, tokenizer):
    _, made = exported
    plain = Tokenizer.from_file(str(made.folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(made.folder / "onnx/model_quantized.onnx")
    encoded = plain.encode(TEXTS[0])
    assert encoded.ids == tokenizer(TEXTS[0])["input_ids"]
    feeds = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    feeds = {node.name: np.array([feeds[node.name]], dtype=np.int64) for node in session.get_inputs()}
    assert session.run(None, feeds)[0].shape == (1, 3)
    assert json.loads((made.folder / "config.json").read_text())["id2label"]["0"]


def test_optimums_configuration_says_what_the_graph_is(exported, tokenizer, tmp_path):
    _, made = exported
    config = ORTConfig.from_pretrained(made.folder)
    config.save_pretrained(tmp_path)
    assert (tmp_path / "ort_config.json").read_text() == (made.folder / "ort_config.json").read_text()
    told, graph = config.quantization, onnx.load(made.folder / "onnx/model_quantized.onnx")
    assert config.opset == graph.opset_import[0].version
    assert not config.use_external_data_format
    assert (told.is_static, told.format, told.per_channel) == (True, QuantFormat.QDQ, True)
    assert (told.activations_dtype, told.weights_dtype) == (QuantType.QUInt8, QuantType.QInt8)
    assert (told.activations_symmetric, told.weights_symmetric) == (False, True)
    assert told.reduce_range
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    made_by = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        sources = [made_by[name] for name in node.input[:2] if name in made_by]
        quantized = len(sources) == 2 and all(source.op_type == "DequantizeLinear" for source in sources)
        assert quantized == (node.name in told.nodes_to_quantize), node.name
        if quantized:
            assert node.op_type in told.operators_to_quantize
            weight, scales, _ = (stored.get(name) for name in sources[1].input)
            assert weight.dtype == np.int8
            axis = {attribute.name: attribute.i for attribute in sources[1].attribute}["axis"]
            assert axis == told.qdq_op_type_per_channel_support_to_axis[node.op_type]
            assert len(scales) == weight.shape[axis]
    assert len(told.nodes_to_quantize) == 3 * 6 + 2
    export_onnx(tiny(), tokenizer, tmp_path / "plain")
    assert not (tmp_path / "plain/ort_config.json").exists()


def test_the_checkpoint_loads_with_plain_transformers(exported, tokenizer):
    model, made = exported
    load = AutoModelForSequenceClassification.from_pretrained if reloads_plainly(model.config) else load_pruned
    plain = load(made.folder).eval()
    assert type(plain.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name])
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    fp32 = onnxruntime.InferenceSession(made.folder / "onnx/model.onnx")
    logits = fp32.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(logits, plain(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_onnx_runtime_runs_integer_products_for_every_layer(exported, tmp_path):
    _, made = exported
    graph = optimized_graph(made.folder / "onnx/model_quantized.onnx", tmp_path / "optimized.onnx")
    kernels = quantized_nodes(graph)
    assert sum(kernels.values()) == 3 * 6 + 2, kernels
    optimized = onnx.load(graph).graph
    # What is left in float are the products of attention, which are of activations alone.
    types = Counter(node.op_type for node in optimized.node)
    assert types["MatMul"] + types["FusedMatMul"] == 3 * 2
    assert not any(types[name] for name in ("Gemm", "FusedGemm"))


def test_the_int8_graph_lets_residuals_and_layer_norms_be(exported, tmp_path):
    """Fused into SkipLayerNormalization they are slower: ONNX Runtime's kernel of it is not vectorised."""
    _, made = exported
    optimized = onnx.load(optimized_graph(made.folder / "onnx/model_quantized.onnx", tmp_path / "optimized.onnx")).graph
    assert not any(node.op_type == "SkipLayerNormalization" for node in optimized.node)


def test_embeddings_are_read_as_int8_and_dequantised_after(exported):
    _, made = exported
    graph = onnx.load(made.folder / "onnx/model_quantized.onnx").graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    tables = [
        stored[node.input[0]] for node in graph.node if node.op_type == "Gather" and node.input[0] in stored
        and list(stored[node.input[0]].dims)[1:] == [32]
    ]  # fmt: skip
    types = {table.name.split(".")[-2]: table.data_type for table in tables}
    integer, single = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT
    expected = {"word_embeddings": integer, "position_embeddings": integer, "token_type_embeddings": single}
    assert types == expected


def test_batch_and_length_are_dynamic_and_padding_changes_little(exported, tokenizer):
    model, made = exported
    session = onnxruntime.InferenceSession(made.folder / "onnx/model_quantized.onnx")
    names = [node.name for node in session.get_inputs()]
    together = dict(tokenizer(TEXTS, padding="max_length", max_length=40, return_tensors="np"))
    logits = session.run(None, {name: together[name] for name in names})[0]
    expected = reference(model, tokenizer)
    assert np.abs(logits - expected).mean() < 0.01 * expected.std()


@pytest.fixture(scope="module")
def exported_family(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("families")

    @cache
    def of(family, head=None):
        model, name = trained(family, tokenizer, head), f"{family}-{head.__name__ if head else ''}"
        return model, export_onnx(model, tokenizer, folder / name, texts=TEXTS)

    return of


@pytest.mark.parametrize("head", [None, AutoModelForTokenClassification], ids=["texts", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exports(family, head, tmp_path, exported_family):
    model, made = exported_family(family, head)
    entry = made.manifest.entry("onnxruntime", "int8")
    assert len(np.shape(entry.outputs[0])) == (1 if head is None else 2)
    assert made.manifest.task == ("text_classification" if head is None else "token_classification")
    kernels = quantized_nodes(optimized_graph(made.folder / "onnx/model_quantized.onnx", tmp_path / "o.onnx"))
    assert made.int8.error <= made.int8.limit
    assert made.fp32.error <= made.fp32.limit
    once, shared = fake_quantized_linears(model), 6 if family == "albert" else 0
    assert sum(kernels.values()) == len(once) + 2 * shared, "ALBERT's one layer runs three times"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_of_a_pruned_model_holds_the_smaller_matrices_alone(family, exported_family):
    model, made = exported_family(family)
    for file, kinds in (("model.onnx", [onnx.TensorProto.FLOAT]), ("model_quantized.onnx", [onnx.TensorProto.INT8])):
        graph = onnx.load(made.folder / "onnx" / file).graph
        stored = Counter(tuple(sorted(tensor.dims)) for tensor in graph.initializer if tensor.data_type in kinds)
        parts = ("q", "k", "v", "attention_output", "ffn_in", "ffn_out")
        matrices = {id(getattr(block, part)): getattr(block, part) for block in Encoder(model).blocks for part in parts}
        wanted = Counter(tuple(sorted(matrix.weight.shape)) for matrix in matrices.values())
        assert not wanted - stored, (file, wanted, stored)
        assert count_parameters(made.folder / "onnx" / file) <= 1.05 * model.num_parameters()


def test_a_family_that_is_not_known_is_named(tmp_path, tokenizer):
    unknown = GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(ValueError, match=r"model type 'gpt2' .*; allowed: .*bert"):
        export_onnx(unknown, tokenizer, tmp_path / "out")


def test_a_model_in_half_precision_is_exported_in_single_and_stays_as_it_is(tmp_path, tokenizer):
    model = tiny().to(torch.bfloat16).train()
    model.config.dtype = torch.bfloat16
    before, weights = model.config.to_dict(), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = export_onnx(model, tokenizer, tmp_path / "out")
    assert made.fp32.error <= made.fp32.limit
    stored = onnx.load(made.folder / "onnx/model.onnx").graph.initializer
    assert not {tensor.data_type for tensor in stored} & {onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT16}
    assert model.config.to_dict() == before
    assert model.config._attn_implementation == "sdpa"
    assert all(module.training for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, weights[name])


def test_a_model_without_head_or_quantisation_exports_in_full_precision(tmp_path, tokenizer):
    made = export_onnx(BertModel(tiny().config), tokenizer, tmp_path / "out")
    assert made.int8 is None
    assert made.fp32.error <= made.fp32.limit
    assert sorted(file.name for file in (tmp_path / "out/onnx").iterdir()) == ["model.onnx"]


@pytest.mark.parametrize("tensor", ["scale", "weight"])
def test_a_wrong_scale_or_weight_fails_the_check(exported, tokenizer, tmp_path, tensor):
    model, made = exported
    graph = onnx.load(made.folder / "onnx/model_quantized.onnx")
    name = "encoder.layer.1.intermediate.dense." + {"scale": "input_scale", "weight": "weight_scale"}[tensor]
    for stored in graph.graph.initializer:
        if stored.name.endswith(name):
            wrong = onnx.numpy_helper.to_array(stored) * np.float32(1.05)
            stored.CopyFrom(onnx.numpy_helper.from_array(np.asarray(wrong, np.float32), stored.name))
            break
    else:
        pytest.fail(f"no {name} in the graph")
    onnx.save(graph, tmp_path / "wrong.onnx")
    with pytest.raises(FidelityError, match=r"wrong\.onnx differs from the PyTorch model"):
        check_fidelity(model, tmp_path / "wrong.onnx", tokenizer, TEXTS)


def test_a_failed_export_leaves_what_was_there(tmp_path, tokenizer, monkeypatch):
    (tmp_path / "out/onnx").mkdir(parents=True)
    (tmp_path / "out/edgemin.json").touch()
    (tmp_path / "out/precious").write_text("kept")

    def fail(*_):
        raise FidelityError("no")

    monkeypatch.setattr("edgemin_hf.export.onnx_fp32.check_fidelity", fail)
    with pytest.raises(FidelityError):
        export_onnx(tiny(), tokenizer, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/precious").read_text() == "kept"


def test_a_folder_with_somebody_elses_graph_is_left_alone(tmp_path, tokenizer):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_text("theirs")
    (tmp_path / "README.md").write_text("theirs")
    with pytest.raises(ValueError, match=r"output: .*, which holds other things; allowed: a new folder"):
        export_onnx(tiny(), tokenizer, tmp_path)
    assert (tmp_path / "README.md").read_text() == (tmp_path / "onnx/model.onnx").read_text() == "theirs"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "some/folder"}, "model: 'some/folder'; expected: a model that is loaded"),
        ({"tokenizer": None}, "tokenizer: 'None'; expected: a tokenizer that is loaded"),
        (
            {"model": tiny(head=AutoModelForMultipleChoice)},
            r"model: BertForMultipleChoice; allowed: a \.\.\.ForSeq",
        ),
        ({"texts": ["my card", None]}, "texts: None among them; expected: texts, or pairs of texts"),
        ({"texts": "my card"}, "texts: 'my card'; expected: a list of texts"),
        ({"output": "/dev/null"}, "/dev/null, which is a file; allowed: a folder"),
    ],
)
def test_what_no_export_can_be_made_of_or_at(given, message, tmp_path, tokenizer):
    with pytest.raises(ValueError, match=message):
        export_onnx(**{"model": tiny(), "tokenizer": tokenizer, "output": tmp_path / "out", **given})


def test_an_export_leaves_the_log_as_it_was(tmp_path, tokenizer):
    before = [logging.getLogger(name).level for name in ("root", "optimum")]
    export_onnx(tiny(), tokenizer, tmp_path / "edge")
    assert [logging.getLogger(name).level for name in ("root", "optimum")] == before
