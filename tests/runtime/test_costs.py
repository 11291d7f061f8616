"""What a process costs that only runs an artefact, and its calls by length."""

import numpy as np
import pytest

from edgemin_hf.benchmark.alone import measured_alone
from edgemin_hf.benchmark.alone_process import peak_bytes
from edgemin_hf.benchmark.by_length import _texts_of, latency_by_length
from edgemin_hf.runtime import load
from tests.runtime.conftest import TEXTS


def test_a_process_alone_holds_nothing_of_ours(made):
    ours = np.ones(100_000_000)  # 800 MB, which what it starts would have among its own by ru_maxrss
    found = measured_alone(made("text_classification")[1], 1, TEXTS)
    assert peak_bytes() > ours.nbytes
    assert 20e6 < found.peak_bytes < 300e6
    assert found.load_ms > 0
    assert found.first_call_ms > 0
    assert found.energy_mj is None or found.energy_mj > 0
    with pytest.raises(RuntimeError, match=r"ended with 1: ValueError: .* no folder"):
        measured_alone(made("text_classification")[1] / "none", 1, TEXTS)


@pytest.mark.parametrize(("name", "expected"), [
    ("text_classification", [8, 16, 24]), ("pairs", [8, 16, 32, 40]), ("question_answering", [8, 16, 32, 48]),
    ("sentence_embedding", [8, 16, 32, 40]),
])  # fmt: skip
def test_calls_are_timed_on_texts_of_each_length(made, name, expected):
    texts = [(TEXTS[0], TEXTS[1])] * 2 if name in ("pairs", "question_answering") else TEXTS
    model = load(made(name)[1])
    found = latency_by_length(model, texts, rounds=2)
    assert [one.tokens for one in found] == [length for length in expected if length <= model.artefact.max_length]
    assert all(0 < one.p50 <= one.p95 for one in found)
    for text, tokens in _texts_of(model, texts, 16):
        asked = (text, "") if name == "pairs" and isinstance(text, str) else text  # as `runtime_call` reads it
        assert len(model.reader.read(asked)) == tokens


def test_of_texts_without_a_token_no_length_is_made(made):
    assert latency_by_length(load(made("text_classification")[1]), ["", " "], rounds=1) == ()
