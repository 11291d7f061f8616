"""Labels, probabilities and scores, by the pipelines and PyTorch; and what all models have in common."""

import json
import pickle
import random
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import pipeline

from edgemin_hf.cli import main
from edgemin_hf.runtime import load
from edgemin_hf.runtime.classifiers import sigmoid, softmax
from tests.helpers.models import WORDS
from tests.runtime.conftest import TASKS, TEXTS


def drawn(count, longest=40, seed=0):
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, longest))) for _ in range(count)]


def logits_of(model, tokenizer, texts, max_length):
    found = []
    for text in texts:
        sides = [text] if isinstance(text, str) else list(text)
        inputs = tokenizer(*sides, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits[0].numpy())
    return np.array(found)


def test_labels_and_probabilities_are_the_pipelines(made, tokenizer):
    model, folder = made("text_classification")
    runtime, texts = load(folder), drawn(150)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    expected = [
        {one["label"]: one["score"] for one in answer} for answer in classify(texts, truncation=True, max_length=24)
    ]
    found, labels = runtime.predict_proba(texts), runtime.predict(texts)
    assert found.shape == (150, 3)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, [[row[name] for name in runtime.labels] for row in expected], atol=1e-5)
    assert labels.shape == (150,)
    assert labels.tolist() == [max(row, key=row.get) for row in expected]
    assert len(set(labels)) > 1
    assert runtime.predict(texts[3]) == labels[3]
    np.testing.assert_allclose(runtime.predict_proba(texts[3]), found[3], atol=1e-6)


@pytest.mark.parametrize("name", ["text_classification", "pairs", "multi_label", "regression"])
def test_order_and_number_of_texts_change_nothing(made, tokenizer, name):
    model, folder = made(name)
    runtime, texts = load(folder, threads=2), drawn(90)
    texts = list(zip(texts[:45], texts[45:], strict=True)) if name == "pairs" else texts
    ask = runtime.predict if name == "regression" else runtime.predict_proba
    found, order = ask(texts), np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(ask([texts[place] for place in order]), found[order], atol=2e-6)
    np.testing.assert_allclose([ask(text) for text in texts], found, atol=2e-6)
    np.testing.assert_allclose(ask(iter(texts)), found, atol=2e-6)
    assert ask([]).shape == (0, *found.shape[1:])
    made_of = {"multi_label": sigmoid, "regression": lambda logits: logits[:, 0]}.get(name, softmax)
    expected = made_of(logits_of(model, tokenizer, texts, TASKS[name].max_length))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert found.flags.c_contiguous


def test_labels_of_a_text_are_those_that_the_task_gives(made, tokenizer):
    model, folder = made("multi_label")
    runtime, texts = load(folder), drawn(60)
    expected = TASKS["multi_label"].predictions(logits_of(model, tokenizer, texts, 40))
    assert runtime.threshold == 0.7
    np.testing.assert_array_equal(runtime.predict(texts), expected)
    assert 0 < expected.mean() < 1
    assert runtime.predict(texts[0]).tolist() == expected[0].tolist()


@pytest.mark.parametrize(
    ("told", "made_of"),
    [
        ({}, sigmoid),
        ({"activation_fn": "torch.nn.modules.activation.Sigmoid"}, sigmoid),
        ({"activation_fn": "torch.nn.modules.linear.Identity"}, np.asarray),
    ],
)
def test_a_score_of_a_reranker_is_what_its_activation_makes(made, tokenizer, tmp_path, told, made_of, capsys):
    model, folder = made("reranking")
    folder = shutil.copytree(folder, tmp_path / "edge")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sentence_transformers": told}))
    passages = drawn(20)
    pairs = [(TEXTS[0], passage) for passage in passages]
    expected = made_of(logits_of(model, tokenizer, pairs, 40)[:, 0])
    np.testing.assert_allclose(load(folder).predict(pairs), expected, atol=1e-5)
    assert load(folder).predict(pairs[0]) == pytest.approx(float(expected[0]), abs=1e-5)
    assert main(["predict", str(folder), "--text", "\t".join(pairs[0])]) == 0
    assert json.loads(capsys.readouterr().out) == {"score": pytest.approx(float(expected[0]), abs=1e-5)}


def test_labels_without_names_have_those_of_transformers(made, tmp_path):
    folder = shutil.copytree(made("pairs")[1], tmp_path / "edge")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load(folder).labels == ("LABEL_0", "LABEL_1")


def test_a_long_pair_is_cut_as_the_tokenizer_cuts_it(made, tokenizer):
    model, folder = made("pairs")
    pairs = [("card " * 3000, "money " * 10), ("late now " * 700, "my old card " * 900), ("my", "where is " * 2000)]
    expected = softmax(logits_of(model, tokenizer, pairs, 40))
    np.testing.assert_allclose(load(folder).predict_proba(pairs), expected, atol=1e-5)


def test_threads_share_a_model_and_a_pickle_is_the_same(made):
    runtime, texts = load(made("text_classification")[1]), drawn(64)
    expected = runtime.predict_proba(texts)
    with ThreadPoolExecutor(8) as pool:
        found = np.array(list(pool.map(runtime.predict_proba, texts)))
    np.testing.assert_allclose(found, expected, atol=2e-6)
    again = pickle.loads(pickle.dumps(runtime))
    np.testing.assert_array_equal(again.predict_proba(texts), expected)


def test_a_model_of_a_relative_folder_outlives_a_change_of_directory(made, tmp_path, monkeypatch):
    folder = made("pairs")[1]
    monkeypatch.chdir(folder.parent)
    runtime = load(folder.name)
    monkeypatch.chdir(tmp_path)
    pair = ("card " * 300, "late")
    expected = runtime.predict_proba(pair)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(runtime)).predict_proba(pair), expected)


def test_probabilities_of_large_logits_are_numbers():
    logits = np.array([[900.0, -900.0, 0.0]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0]])
    np.testing.assert_allclose(sigmoid(logits), [[1, 0, 0.5]])
    assert sigmoid(logits).dtype == softmax(logits).dtype == np.float32


@pytest.mark.parametrize(
    ("name", "method", "told"),
    [
        (
            "text_classification",
            "entities",
            "a model for text_classification has none; allowed: predict, predict_proba",
        ),
        ("regression", "predict_proba", "a model for regression has none; allowed: predict"),
        ("token_classification", "predict", "a model for token_classification has none; allowed: entities"),
        ("sentence_embedding", "answer", "a model for sentence_embedding has none; allowed: encode"),
    ],
)
def test_what_a_task_can_not_do_is_told(made, name, method, told):
    runtime = load(made(name)[1])
    with pytest.raises(AttributeError, match=told):
        getattr(runtime, method)
    assert not hasattr(runtime, method)
    with pytest.raises(AttributeError, match="no attribute 'fill'"):
        _ = runtime.fill


@pytest.mark.parametrize(
    ("name", "texts", "told"),
    [
        ("text_classification", 7, "texts: 7; expected: a text"),
        ("text_classification", ["a", None], "texts: 'None' among them; expected: texts"),
        (
            "text_classification",
            "late \ud83d",
            r"texts: 'late \\ud83d' among them; expected: .* without lone surrogates",
        ),
        ("pairs", [("late", "\ud83d")], r"expected: texts, or pairs of texts, without lone surrogates"),
        ("text_classification", [("a", "b")], "expected: texts, not pairs"),
        ("pairs", "where", "texts: 'where'; expected: pairs of text and reply"),
    ],
)
def test_what_is_no_text_is_told(made, name, texts, told):
    with pytest.raises(ValueError, match=told):
        load(made(name)[1]).predict(texts)


def test_bad_arguments_are_told_in_one_line(made, tmp_path):
    folder = made("text_classification")[1]
    for arguments, told in (
        ({"file": "onnx/other.onnx"}, r"file: onnx/other.onnx; allowed: onnx/model.onnx"),
        ({"threads": 0}, "threads: 0; allowed: 1 or more"),
        ({"providers": ["Abacus"]}, "providers: Abacus; allowed: .*CPUExecutionProvider"),
    ):
        with pytest.raises(ValueError, match=told):
            load(folder, **arguments)
    with pytest.raises(ValueError, match=r"holds no edgemin\.json; expected: a folder that"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no folder, and not loaded from the Hub"):
        load(tmp_path / "nowhere" / "at all")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format: 2; allowed: 1"),
        ({"task": "fill_mask"}, "an artefact for fill_mask; allowed: one for .*text_classification"),
        ({"entries": [{"file": "../x.onnx", "runtime": "onnxruntime", "precision": "fp32"}]}, r"file: \.\./x\.onnx"),
        ({"entries": []}, "no graph that ONNX Runtime .* loads; expected: one in edgemin.json"),
    ],
)
def test_a_manifest_that_will_not_do_is_told(made, tmp_path, change, told):
    folder = shutil.copytree(made("text_classification")[1], tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    (folder / "edgemin.json").write_text(json.dumps(manifest | change))
    with pytest.raises(ValueError, match=told):
        load(folder)


def test_a_graph_that_this_onnxruntime_is_too_old_for_is_not_chosen(made, tmp_path):
    folder = shutil.copytree(made("text_classification")[1], tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    plain = manifest["entries"][-1]
    manifest["entries"].append({**plain, "file": "onnx/model_quantized.onnx", "precision": "int8"})
    (folder / "edgemin.json").write_text(json.dumps(manifest))
    shutil.copy(folder / "onnx/model.onnx", folder / "onnx/model_quantized.onnx")
    assert load(folder).file.file == "onnx/model_quantized.onnx"
    assert load(folder, "model.onnx").file.precision == "fp32"
    manifest["entries"][-1]["min_runtime"] = "99.1"
    (folder / "edgemin.json").write_text(json.dumps(manifest))
    assert load(folder).file.file == "onnx/model.onnx"


def test_an_artefact_that_says_nothing_of_reading_is_read_as_its_tokenizer_allows(made, tmp_path, tokenizer):
    model, folder = made("text_classification")
    folder = shutil.copytree(folder, tmp_path / "edge")
    manifest = json.loads((folder / "edgemin.json").read_text())
    del manifest["reading"]
    (folder / "edgemin.json").write_text(json.dumps(manifest))
    runtime = load(folder)
    assert runtime.artefact.max_length == 64
    expected = softmax(logits_of(model, tokenizer, TEXTS, 64))
    np.testing.assert_allclose(runtime.predict_proba(TEXTS), expected, atol=1e-5)
