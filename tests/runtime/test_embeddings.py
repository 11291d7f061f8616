"""Vectors as they are given out, by PyTorch and sentence-transformers."""

import json
import shutil

import numpy as np
import pytest
import torch

from edgemin_hf.runtime import load
from edgemin_hf.runtime.vectors import as_bits, as_int8
from tests.runtime.conftest import TEXTS


@pytest.fixture
def vectors(made, tokenizer):
    model, _ = made("sentence_embedding")
    with torch.no_grad():
        return model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).sentence_embedding.numpy()


def test_they_are_the_models(made, vectors):
    runtime = load(made("sentence_embedding")[1], verify=True)
    found = runtime.encode(TEXTS)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((4, 32), np.float32, True)
    np.testing.assert_allclose(found, vectors, atol=2e-5)
    np.testing.assert_allclose(runtime.encode(TEXTS[1]), found[1], atol=1e-6)
    assert runtime.encode([]).shape == (0, 32)


def test_prefixes_and_precisions(made):
    runtime = load(made("sentence_embedding")[1])
    whole = runtime.encode(TEXTS)
    short = runtime.encode(TEXTS, truncate_dim=20)
    assert short.flags.c_contiguous
    np.testing.assert_array_equal(short, whole[:, :20])
    np.testing.assert_array_equal(runtime.encode(TEXTS, precision="int8"), as_int8(whole))
    bits = runtime.encode(TEXTS, precision="bits", truncate_dim=20)
    assert (bits.shape, bits.dtype, bits.flags.c_contiguous) == ((4, 3), np.uint8, True)
    np.testing.assert_array_equal(bits, as_bits(whole[:, :20]))
    lengths = np.linalg.norm(runtime.encode(TEXTS, truncate_dim=5, normalize_embeddings=True), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    for arguments, told in (
        ({"precision": "int4"}, "precision: int4; allowed: float32, int8, bits"),
        ({"truncate_dim": 33}, "truncate_dim: 33; allowed: 1 to 32"),
        ({"prompt_name": "query"}, "prompt_name: query; allowed: none"),
    ):
        with pytest.raises(ValueError, match=told):
            runtime.encode(TEXTS, **arguments)
    with pytest.raises(ValueError, match="expected: texts, not pairs"):
        runtime.encode([("a", "b")])


def test_prompts_are_those_of_sentence_transformers(made, tmp_path):
    plain = load(made("sentence_embedding")[1])
    folder = shutil.copytree(plain.artefact.folder, tmp_path / "edge")
    told = {"prompts": {"query": "where is ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    expected = plain.encode(["where is my card", "where is late"])
    prompted = load(folder)
    np.testing.assert_allclose(prompted.encode(["my card", "late"]), expected, atol=1e-6)
    np.testing.assert_allclose(prompted.encode("my card", prompt_name="query"), expected[0], atol=1e-6)
    # An empty prompt, such as sentence-transformers writes by itself, has a name too.
    np.testing.assert_allclose(prompted.encode("my card", prompt_name="document"), plain.encode("my card"), atol=1e-6)
    sentence_transformers = pytest.importorskip("sentence_transformers")
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(["my card", "late"])
    np.testing.assert_allclose(prompted.encode(["my card", "late"]), theirs, atol=2e-5)
