"""Answers to questions, by the task's own predictions and by the pipeline."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import transformers
from datasets import Dataset
from transformers import pipeline

from edgemin_hf import export_onnx
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.modeling import load_tokenizer
from edgemin_hf.runtime import load
from edgemin_hf.tasks import QuestionAnswering
from tests.helpers.models import tiny
from tests.helpers.questions import KINDS, TEXTS, asked, tokenizer_of
from tests.runtime.conftest import ANSWERS

QUESTIONS = ["what is it", "who won in São Paulo", "when " * 60, "?"]
CONTEXTS = [*TEXTS, " ".join(TEXTS), " ".join(reversed(TEXTS)), "  ", "won"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    def made(kind, side="right", **settings):
        model, tokenizer = tiny(**ANSWERS, vocab_size=400), tokenizer_of(kind, side)
        tokenizer.model_max_length = 64
        folder = tmp_path_factory.mktemp("answers") / "edge"
        export_onnx(model, tokenizer, folder, texts=["card"], max_length=48)
        task = QuestionAnswering("a", "b", max_length=48, stride=8, **settings)
        replace(read_manifest(folder), reading=task.reading).write(folder)
        return model, load_tokenizer(folder), folder, task

    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("threshold", [None, -1.0])
def test_they_are_those_of_the_task(exported, kind, side, threshold):
    _, tokenizer, folder, task = exported(kind, side, no_answer_threshold=threshold, max_answer_length=7)
    runtime = load(folder)
    pairs = [(question, context) for question in QUESTIONS for context in CONTEXTS]
    table = Dataset.from_list([asked(context, question=question) for question, context in pairs])
    windows = task.tokenized(table, tokenizer, {}, with_labels=False)
    assert len(windows) > len(pairs)
    outputs = []
    for row in windows:
        inputs = {name: np.array([row[name]]) for name in tokenizer.model_input_names}
        outputs.append(runtime.graph.run(runtime.graph.feed(inputs))[0])
    expected = task.predictions(outputs, windows)
    found = runtime.answer(*zip(*pairs, strict=True))
    assert [one["answer"] for one in found] == expected
    for (_, context), one in zip(pairs, found, strict=True):
        assert context[one["start"] : one["end"]] == one["answer"]
        assert 0 <= one["score"] <= 1
    assert ("" in expected) or threshold is None
    assert any(expected)


@pytest.mark.skipif(int(transformers.__version__[0]) > 4, reason="transformers 5 has no such pipeline")
@pytest.mark.parametrize("handles", [False, True])
def test_of_a_short_context_the_pipeline_says_the_same(exported, handles):
    model, tokenizer, folder, _ = exported("word_pieces", no_answer_threshold=0.0 if handles else None)
    runtime = load(folder)
    tell = pipeline("question-answering", model=model, tokenizer=tokenizer)
    for context in ("Olivia won in June", "fans sent 3 June to everyone", "它 began"):
        arguments = {
            "max_seq_len": 48,
            "max_answer_len": 30,
            "handle_impossible_answer": handles,
            "align_to_words": False,
        }
        expected, found = tell("who won", context, **arguments), runtime.answer("who won", context)
        assert (found["answer"], found["start"], found["end"]) == tuple(
            expected[name] for name in ("answer", "start", "end")
        )
        np.testing.assert_allclose(found["score"], expected["score"], rtol=2e-3)


def test_one_and_many_and_one_context_for_all(exported):
    _, _, folder, _ = exported("word_pieces")
    runtime = load(folder)
    alone = [runtime.answer(question, TEXTS[0]) for question in QUESTIONS]
    together = runtime.answer(QUESTIONS, TEXTS[0])
    assert [one["answer"] for one in alone] == [one["answer"] for one in together]
    np.testing.assert_allclose([one["score"] for one in alone], [one["score"] for one in together], rtol=1e-4)
    assert runtime.answer([], []) == []
    with pytest.raises(ValueError, match="context: 1 of them for 2 questions; expected: as many"):
        runtime.answer(["a", "b"], ["c"])
    for arguments, told in (
        ((["a"], [7]), "context: 7; expected: a text"),
        (("a", None), "context: None; expected: a text, or many"),
        ((5, "a"), "question: 5; expected: a text, or many"),
    ):
        with pytest.raises(ValueError, match=told):
            runtime.answer(*arguments)


def test_without_settings_the_defaults_of_the_task_hold(exported, tmp_path):
    _, _, folder, _ = exported("word_pieces")
    folder = shutil.copytree(folder, tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    del manifest["reading"]
    (folder / "edgemin.json").write_text(json.dumps(manifest))
    assert isinstance(load(folder).answer("who", " ".join(TEXTS))["answer"], str)
