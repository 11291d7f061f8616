"""Whole calls of every task, by the runtime and through Optimum's pipeline."""

from dataclasses import replace
from importlib.util import find_spec

import pytest

from edgemin_hf.benchmark.artefact import benchmark_artefact
from edgemin_hf.benchmark.whole_call import whole_calls
from edgemin_hf.neural_compressor import optimum_pipelines
from edgemin_hf.neural_compressor.optimum_pipelines import optimum_call
from edgemin_hf.report.page import conditions
from edgemin_hf.runtime import load
from edgemin_hf.runtime.one_call import runtime_call
from tests.runtime.conftest import MODELS, TEXTS

OPTIMUM = find_spec("optimum") is not None and find_spec("optimum.onnxruntime") is not None


@pytest.mark.parametrize("name", MODELS)
def test_every_task_has_one(made, name):
    folder = made(name)[1]
    found = whole_calls(folder, TEXTS, 1, 2, optimum_call)
    expected = {("runtime", "onnxruntime", "fp32")}
    if OPTIMUM and name not in ("sentence_embedding", "reranking"):  # of which it has no pipelines
        expected.add(("optimum", "onnxruntime", "fp32"))
    assert set(found) == expected
    assert all(ms.shape == (8,) and ms.min() > 0 for ms in found.values())


@pytest.mark.skipif(not OPTIMUM, reason="Optimum's ONNX part ends with transformers 4.57")
@pytest.mark.parametrize(("name", "texts"), [("text_classification", TEXTS), ("pairs", [tuple(TEXTS[:2])])])
def test_both_ways_say_the_same(made, name, texts):
    folder = made(name)[1]
    ours, theirs = runtime_call(load(folder)), optimum_call(folder, "onnx/model.onnx", 1)
    for text in texts:
        answer = theirs(text)
        assert ours(text) == (answer[0] if isinstance(answer, list) else answer)["label"]


def test_without_optimum_the_runtime_s_stand_alone(made, monkeypatch):
    folder = made("text_classification")[1]
    monkeypatch.setattr(optimum_pipelines, "find_spec", lambda package: None)
    benchmark = benchmark_artefact(folder, None, None, threads=1, rounds=1, pipeline=optimum_call)
    graph = benchmark.rows[-1]
    assert graph.whole_call_ms.p50 > 0
    assert graph.optimum_call_ms is None
    assert benchmark.rows[0].whole_call_ms is None  # PyTorch's
    assert "Whole calls, text in and answer out, p50: fp32 " in conditions(benchmark)
    assert "Optimum" not in conditions(benchmark)
    assert "Whole calls" not in conditions(replace(benchmark, rows=benchmark.rows[:1]))
