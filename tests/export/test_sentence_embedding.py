"""Graphs of sentence encoders of every family, with the pooled vector, in ONNX Runtime and what stands on it."""

import itertools

import numpy as np
import onnxruntime
import pytest
import torch

from edgemin_hf import QuantizationConfig, create_student, export_onnx
from edgemin_hf.modeling.embedder import SentenceHead
from edgemin_hf.modeling.embedder_files import read_sentence_head
from edgemin_hf.runtime.graph import graph_feed
from tests.helpers.models import FAMILIES
from tests.helpers.training import make
from tests.modeling.test_embedder import embedder

HEADS = [SentenceHead("mean"), SentenceHead("cls", 8, "tanh")]
TEXTS = ["where is my card", "please send the money to my new old card now", "late"]


def answers(graph, tokenizer):
    """Run a graph on padded texts."""
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    inputs = tokenizer(TEXTS, padding=True, return_tensors="np")
    feed = graph_feed([node.name for node in session.get_inputs()], {k: v.astype(np.int64) for k, v in inputs.items()})
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


# What is made of the last layer does not know the family: each has one of two heads.
@pytest.mark.parametrize(("family", "head"), zip(FAMILIES, itertools.cycle(HEADS)))
def test_every_family_is_exported_with_its_vector(family, head, tmp_path, tokenizer):
    model = embedder(family, head)
    made = export_onnx(model, tokenizer, tmp_path / "edge", texts=TEXTS)
    assert made.fp32.error <= made.fp32.limit
    found = answers(tmp_path / "edge/onnx/model.onnx", tokenizer)
    assert list(found) == ["sentence_embedding", "last_hidden_state"]
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        expected = model(**inputs)
    np.testing.assert_allclose(found["sentence_embedding"], expected.sentence_embedding.numpy(), atol=2e-5)
    assert found["sentence_embedding"].shape == (3, head.dense or 32)
    assert read_sentence_head(str(tmp_path / "edge")) == head
    assert made.manifest.task == "sentence_embedding"
    assert len(made.manifest.entries[0].outputs[0]) == (head.dense or 32)


@pytest.mark.long
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_quantised_one_is_what_was_trained(weights, tmp_path, tokenizer):
    teacher = embedder()
    student = create_student(teacher, 2)
    settings = QuantizationConfig(weights=weights, group_size=32) if weights == "int4" else QuantizationConfig()
    trainer = make(tmp_path / "work", tokenizer, student, teacher, quantization_config=settings, max_steps=1)
    trainer.train()
    made = export_onnx(trainer.model.eval(), tokenizer, tmp_path / "edge", texts=TEXTS)
    checked = made.int8 if weights == "int8" else made.int4
    assert checked.error <= checked.limit
    file = "model_quantized.onnx" if weights == "int8" else "model_q4.onnx"
    vectors = answers(tmp_path / "edge/onnx" / file, tokenizer)["sentence_embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.long
def test_optimum_and_sentence_transformers_run_the_graph(tmp_path, tokenizer):
    optimum = pytest.importorskip("optimum.onnxruntime", reason="Optimum's ONNX part ends with transformers 4.57")
    library = pytest.importorskip("sentence_transformers")
    model = embedder(head=SentenceHead("mean", 8))
    export_onnx(model, tokenizer, tmp_path / "edge", texts=TEXTS)
    found = answers(tmp_path / "edge/onnx/model.onnx", tokenizer)
    runner = optimum.ORTModelForFeatureExtraction.from_pretrained(
        tmp_path / "edge", subfolder="onnx", file_name="model.onnx"
    )
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    np.testing.assert_allclose(runner(**inputs).last_hidden_state, found["last_hidden_state"], atol=1e-5)
    settings = {"backend": "onnx", "model_kwargs": {"file_name": "onnx/model.onnx"}, "device": "cpu"}
    reader = library.SentenceTransformer(str(tmp_path / "edge"), **settings)
    np.testing.assert_allclose(reader.encode(TEXTS), found["sentence_embedding"], atol=1e-5)
