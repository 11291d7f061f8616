"""The clients of `examples/` answer as the runtime does, on tiny artefacts; OpenVINO's in `make test-openvino`."""

import asyncio
import json
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clients.python.agree import CLIENTS, difference, example, limit, main, missing
from edgemin_hf.runtime import load
from tests.runtime.conftest import TEXTS

ROOT = Path(__file__).parents[2]
FILE = "onnx/model.onnx"
NAMED = [(task, name, packages) for task, clients in CLIENTS.items() for name, packages in clients.items()]


@pytest.mark.long
@pytest.mark.parametrize(("task", "name", "packages"), NAMED, ids=[name for _, name, _ in NAMED])
def test_a_client_answers_as_the_runtime_does(made, task, name, packages):
    if lacking := missing(packages):
        pytest.skip(f"without {', '.join(lacking)}")
    assert difference(name, made(task)[1], TEXTS, FILE) <= limit(name)


def test_every_example_is_a_client_and_no_longer_than_a_screen():
    files = {file.stem: len(file.read_text().splitlines()) for file in (ROOT / "examples").glob("*.py")}
    assert sorted(files) == sorted(name for _, name, _ in NAMED)
    assert max(files.values()) <= 80
    assert files["plain_onnxruntime"] <= 40


def test_a_client_that_answers_otherwise_is_told_and_fails(made, monkeypatch, capsys):
    folder = str(made("text_classification")[1])
    monkeypatch.setattr("clients.python.agree.difference", lambda name, *_: 0.0 if name == "server" else 0.1)
    monkeypatch.setattr("clients.python.agree.missing", lambda packages: ["no-such"] if "openvino" in packages else [])
    assert main(folder) == 1
    told = capsys.readouterr().out
    assert "plain_onnxruntime                differs by 1.0e-01 of at most 0.0001" in told
    assert "openvino_pipeline                left out: without no-such" in told


def test_labels_that_no_one_named_have_transformers_names(made, tmp_path):
    folder = Path(shutil.copytree(made("pairs")[1], tmp_path / "edge"))
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"]  # as transformers writes two labels by the names that it gives them
    (folder / "config.json").write_text(json.dumps(config))
    found = example("plain_onnxruntime").answers(folder, TEXTS, FILE)
    assert {answer["label"] for answer in found} <= {"LABEL_0", "LABEL_1"}


def test_embeddings_have_unit_length_and_queries_a_prompt_of_their_own(made, monkeypatch):
    folder = made("sentence_embedding")[1]
    embeddings = example("embeddings_class").EdgeEmbeddings(folder)
    rows = np.array(embeddings.embed_documents(TEXTS))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), rows[0], atol=1e-6)
    assert isinstance(embeddings.embed_query(TEXTS[0])[0], float)
    assert embeddings.embed_documents([]) == []
    assert asyncio.run(embeddings.aembed_query(TEXTS[1])) == embeddings.embed_query(TEXTS[1])
    monkeypatch.setattr(embeddings, "embed_documents", lambda texts: threading.current_thread())
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) is not threading.main_thread()  # whose loop others use
    with pytest.raises(ValueError, match="prompt_name"):
        example("embeddings_class").EdgeEmbeddings(folder, query_prompt="no-such").embed_query("late")


def test_a_pipeline_of_scikit_learn_learns_and_is_pickled(made):
    given = example("scikit_learn")
    fitted = given.classifier(made("sentence_embedding")[1]).fit(given.TEXTS, given.LABELS)
    found = fitted.predict(given.TEXTS)
    assert np.mean(found == np.array(given.LABELS)) > 0.8
    assert (pickle.loads(pickle.dumps(fitted)).predict(given.TEXTS) == found).all()


@pytest.fixture
def service(made, monkeypatch):
    """The service's module, and a client that asks it."""
    testing = pytest.importorskip("fastapi.testclient", exc_type=ImportError)
    module = example("server")
    monkeypatch.setenv("ARTEFACT", str(made("text_classification")[1]))
    with testing.TestClient(module.app) as client:
        yield module, client


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own(service, made, monkeypatch):
    module, client = service
    model, batches = client.app.state.model, []
    predict = type(model).predict_proba
    monkeypatch.setattr(model, "predict_proba", lambda texts: batches.append(len(texts)) or predict(model, texts))
    monkeypatch.setattr(module, "WAIT", 0.1)
    asked = [[TEXTS[number % 4], TEXTS[(number + 1) % 4]] for number in range(12)]
    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda texts: client.post("/predict", json={"texts": texts}).json(), asked))
    assert sum(batches) == 24
    assert len(batches) <= 4
    for texts, answer in zip(asked, found, strict=True):
        assert [row["label"] for row in answer] == load(made("text_classification")[1]).predict(texts).tolist()


def test_what_can_not_be_asked_is_the_askers_error_and_the_service_goes_on(service, monkeypatch):
    _, client = service
    for wrong in ({"texts": []}, {"texts": "late"}, {"texts": ["late"] * 257}, {}):
        assert client.post("/predict", json=wrong).status_code == 422
    with monkeypatch.context() as patched:
        patched.setattr(client.app.state.model, "predict_proba", lambda texts: [][0])
        with pytest.raises(IndexError):
            client.post("/predict", json={"texts": ["late"]})
    assert len(client.post("/predict", json={"texts": ["late"]}).json()) == 1
