"""Do the clients of `examples/` answer as the runtime does? Run by `make clients ARTEFACT=...` and by a test.

PYTHONPATH=. python -m clients.python.agree ARTEFACT [TEXT ...]

A line a client of the artefact's task; one whose packages are not there is left out, and one that answers otherwise
is exit code 1.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np

from edgemin_hf.runtime import load

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENTS = {
    "text_classification": {
        "plain_onnxruntime": ["onnxruntime"],
        "optimum_pipeline": ["optimum.onnxruntime"],
        "openvino_pipeline": ["optimum.intel", "openvino"],
        "server": ["fastapi", "httpx"],
    },
    "sentence_embedding": {
        "embeddings_class": ["onnxruntime"],
        "scikit_learn": ["sklearn"],
        "sentence_transformers_onnx": ["sentence_transformers", "optimum.onnxruntime"],
        "sentence_transformers_openvino": ["sentence_transformers", "optimum.intel", "openvino"],
    },
}
"""By an artefact's task: the example's name, and the packages that it needs."""

EXACT, ROUNDED = 1e-4, 0.05
"""How far probabilities, or a vector's components, may lie from the runtime's: in ONNX Runtime, and in OpenVINO, where
values between two steps of a quantised graph's grids come to the other one."""
TEXTS = ["Where is my card?", "Please send the money to my new account now.", "late", "How old must I be? " * 40]


def example(name):
    """Return an example's module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing(packages):
    """Return those that are not installed."""

    def there(name):
        above = name.rpartition(".")[0]
        return (not above or there(above)) and importlib.util.find_spec(name) is not None

    return [name for name in packages if not there(name)]


def served(artefact, texts):
    """Ask `examples/server.py`, without a socket."""
    from fastapi.testclient import TestClient

    os.environ["ARTEFACT"] = str(artefact)
    with TestClient(example("server").app) as client:
        return client.post("/predict", json={"texts": texts}).json()


def difference(name, artefact, texts, file):
    """Return how far the numbers of a client lie from the runtime's at most."""
    model = load(artefact, file)
    if model.artefact.task == "sentence_embedding":
        expected = model.encode(texts)
        if name == "embeddings_class":
            expected = model.encode(texts, normalize_embeddings=True)
        return float(np.abs(np.asarray(example(name).answers(artefact, texts, file)) - expected).max())
    if name == "server":
        model = load(artefact)  # it takes the graph that the runtime takes
        found = served(artefact, texts)
    else:
        found = example(name).answers(artefact, texts, file, model.artefact.max_length)
    rows = model.predict_proba(texts)
    labels, scores = [answer["label"] for answer in found], [answer["score"] for answer in found]
    # Of two labels that are as likely a rounding decides.
    chosen = np.array([row[model.labels.index(label)] for row, label in zip(rows, labels, strict=True)])
    return float(max(np.abs(chosen - scores).max(), np.abs(rows.max(axis=1) - scores).max()))


def limit(name):
    """Return how far a client's numbers may lie from the runtime's."""
    return ROUNDED if "openvino" in name else EXACT


def main(artefact, *texts):
    """Ask all clients, print a line each, and return the exit code."""
    task = load(artefact).artefact.task
    if task not in CLIENTS:
        raise ValueError(f"{artefact}: an artefact for {task}; allowed: one for {', '.join(CLIENTS)}")
    failed = False
    for name, packages in CLIENTS[task].items():
        if lacking := missing(packages):
            print(f"{name:32} left out: without {', '.join(lacking)}")
            continue
        found = difference(name, artefact, list(texts or TEXTS), "onnx/model_quantized.onnx")
        failed |= not found <= limit(name)
        print(f"{name:32} differs by {found:.1e} of at most {limit(name):g}")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("agree: no artefact; expected: python -m clients.python.agree ARTEFACT [TEXT ...]")
    try:
        sys.exit(main(*sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"agree: {error}")
