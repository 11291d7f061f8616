"""A graph of one shape, as NPUs want it, answers for every task: windows and questions are cut to its length."""

from dataclasses import replace

import numpy as np
import pytest

from edgemin_hf import export_onnx
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.runtime import load, verify
from tests.runtime.conftest import MODELS, TASKS, TEXTS

LONG = "please send the money to my new old card now " * 9
ASKED = {
    "pairs": lambda model, text: model.predict_proba([(text, "late"), (text, text)]),
    "token_classification": lambda model, text: [[one["score"] for one in model.entities(text)]],
    "question_answering": lambda model, text: [model.answer(text, "where is my card")["score"]],
    "sentence_embedding": lambda model, text: model.encode([text, "late", "the card"]),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_graph_of_one_shape_answers_every_task(name, tmp_path, tokenizer):
    folder = tmp_path / "edge"
    export_onnx(MODELS[name](), tokenizer, folder, texts=TEXTS, max_length=40, fixed_shape=(2, 16))
    if name in TASKS:
        # A stride that the whole length allows, and this one does not.
        task = replace(TASKS[name], max_length=40, **{"stride": 14} if hasattr(TASKS[name], "stride") else {})
        replace(read_manifest(folder), task=task.type, reading=task.reading).write(folder)
    free, fixed = load(folder), load(folder, "model_2x16.onnx")
    assert (free.max_length, fixed.max_length) == (40, 16)
    assert verify(fixed) < 1e-4
    for expected, found in zip(ASKED[name](free, "the card"), ASKED[name](fixed, "the card"), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert all(np.isfinite(one).all() for one in ASKED[name](fixed, LONG))
