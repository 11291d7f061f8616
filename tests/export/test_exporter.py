"""The exporter: it computes what the model computes, at any batch and length, and leaves nothing behind."""

import logging
from collections import Counter
from contextlib import suppress

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from google.protobuf.message import EncodeError
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from edgemin_hf.export import fused_attention
from edgemin_hf.export.exporter import export_graph, input_names, quiet_exporter
from edgemin_hf.export.onnx_graph import write_fused, write_graph
from edgemin_hf.quantization.integer import plain_copy
from tests.helpers.models import FAMILIES, VOCABULARY, batch, tiny

SHAPES = {
    "one text": batch((7,)),
    "another length and batch": batch((9, 3, 12)),
    "padded on the left": batch((5, 1, 8), side="left", pad_to=15),
}
TOKENS = ["batch_size", "sequence_length"]
HEADS = {
    AutoModelForSequenceClassification: {"logits": ["batch_size", 9]},
    AutoModelForTokenClassification: {"logits": [*TOKENS, 9]},
    AutoModelForQuestionAnswering: {"start_logits": TOKENS, "end_logits": TOKENS},
    AutoModelForMaskedLM: {"logits": [*TOKENS, len(VOCABULARY)]},
    AutoModel: {"last_hidden_state": [*TOKENS, 32]},
}


def run(graph, inputs):
    """All outputs by name; token types, where a graph takes them, are those of a pair of texts."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    feeds = {name: tensor.numpy() for name, tensor in with_types(inputs).items()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, {n.name: feeds[n.name] for n in session.get_inputs()}), strict=True))


def with_types(inputs):
    ids = inputs["input_ids"]
    return {**inputs, "token_type_ids": (torch.arange(ids.shape[1]) > 2).long().expand_as(ids)}


def assert_computes(model, graph, rtol=1e-5):
    taken = [node.name for node in onnx.load(graph).graph.input]
    if model.config.model_type == "modernbert":
        # It classifies by the first token; where that is a pad, PyTorch's own implementations differ from each other.
        model.set_attn_implementation("eager")
    for case, inputs in SHAPES.items():
        with torch.no_grad():
            expected = model(**{name: tensor for name, tensor in with_types(inputs).items() if name in taken})
        for name, found in run(graph, inputs).items():
            np.testing.assert_allclose(found, expected[name].numpy(), rtol=rtol, atol=1e-5, err_msg=f"{name}, {case}")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_what_pytorch_computes(family, float_graph):
    assert_computes(*float_graph(family))


def optimums(model, folder):
    exporters = pytest.importorskip("optimum.exporters.onnx")
    from optimum.exporters.onnx.model_configs import BertOnnxConfig

    own = {"model": BertOnnxConfig(model.config, "text-classification")} if model.config.model_type == "ernie" else {}
    with quiet_exporter():
        exporters.onnx_export_from_model(
            plain_copy(model), folder, task="text-classification", do_validation=False, custom_onnx_configs=own
        )
    return folder / "model.onnx"


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_optimums_graph(family, float_graph, tmp_path):
    """The same operators as often, and the same inputs: token types of RoBERTa's kin are left out too."""
    model, ours = float_graph(family)
    theirs = optimums(model, tmp_path)
    graphs = [onnx.load(path).graph for path in (ours, theirs)]
    taken, types = zip(*(([v.name for v in g.input], Counter(n.op_type for n in g.node)) for g in graphs), strict=True)
    assert taken[0] == taken[1]
    assert types[0] == types[1]
    for inputs in SHAPES.values():
        np.testing.assert_allclose(run(ours, inputs)["logits"], run(theirs, inputs)["logits"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_outputs_and_their_axes_are_those_of_the_head(family, head, tmp_path):
    """Nine labels, as many as the longer sample has tokens."""
    labels = {index: str(index) for index in range(2 if head is AutoModelForQuestionAnswering else 9)}
    model = tiny(family, head=head, id2label=labels, label2id={name: index for index, name in labels.items()})
    export_graph(plain_copy(model), tmp_path / "model.onnx")
    outputs = onnx.load(tmp_path / "model.onnx").graph.output
    found = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in outputs
    }
    assert found == HEADS[head]
    assert_computes(model, tmp_path / "model.onnx", rtol=1e-4)


def test_inputs_are_what_the_model_takes_and_its_tokenizer_gives(tokenizer, monkeypatch):
    both, three = ["input_ids", "attention_mask"], ["input_ids", "attention_mask", "token_type_ids"]
    assert input_names(tiny()) == input_names(tiny(), tokenizer) == three
    assert input_names(tiny("distilbert"), tokenizer) == input_names(tiny("mpnet"), tokenizer) == both
    assert input_names(tiny("roberta", type_vocab_size=1), tokenizer) == both
    monkeypatch.setattr(tokenizer, "model_input_names", both)
    assert input_names(tiny(), tokenizer) == both


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind_and_nothing_said(fails, tmp_path, monkeypatch, recwarn, capfd):
    model = plain_copy(tiny()).train()
    model.bert.encoder.layer[1].eval()
    root = logging.getLogger()

    def state():
        modes = [module.training for module in model.modules()]
        forwards = [name for name, module in model.named_modules() if "forward" in vars(module)]
        return modes, forwards, model.config.to_dict(), list(root.handlers), list(root.filters), root.level

    def fail(*_args, **_kwargs):
        raise RuntimeError("no")

    before, random, weights = state(), torch.get_rng_state(), model.state_dict()
    module = transformers.models.bert.modeling_bert
    names = dict(vars(module))
    if fails:
        monkeypatch.setattr(torch.onnx, "export", fail)
    with suppress(RuntimeError):
        export_graph(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").exists() != fails
    assert state() == before
    assert vars(module) == names
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not list(recwarn)
    assert capfd.readouterr() == ("", "")


def test_what_a_graph_too_large_for_one_file_stores_lies_beside_it(float_graph, tmp_path, monkeypatch):
    """As of one above 2 GB, which protobuf refuses to measure, and to give to ONNX's converter."""

    def refuse(*_):
        raise EncodeError("Failed to serialize proto")

    model, one_file = float_graph("bert")
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 10_000)
    monkeypatch.setattr(fused_attention.version_converter, "convert_version", refuse)
    monkeypatch.setattr(onnx.ModelProto, "ByteSize", refuse, raising=False)
    write_graph(plain_copy(model), tmp_path / "onnx/model.onnx")
    assert not write_fused(tmp_path / "onnx/model.onnx", tmp_path / "onnx/model_fused.onnx")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["model.onnx", "model.onnx_data", "onnx"]
    assert (tmp_path / "onnx/model.onnx").stat().st_size < one_file.stat().st_size / 2
    assert_computes(model, tmp_path / "onnx/model.onnx")
