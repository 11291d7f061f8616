from dataclasses import replace

import numpy as np
import pytest

from edgemin_hf.export.onnx import export_baseline
from edgemin_hf.export.onnx_fp32 import FP32_GRAPH
from edgemin_hf.rivals.base import Given
from edgemin_hf.rivals.graphs import made_of_graph
from edgemin_hf.rivals.openvino import openvino
from edgemin_hf.tasks import TextClassification
from tests.helpers.models import sentences


def test_the_teacher_in_8_bits_says_what_it_says_in_32(workplace, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    export_baseline(workplace / "teacher", tmp_path / "teacher", TextClassification)
    train, test = ([text for text, _ in sentences(count, seed=seed)] for count, seed in ((20, 0), (40, 1)))
    labels, task = np.zeros(20, np.int64), TextClassification("train.tsv", "test.tsv", max_length=24)
    given = Given(task, workplace / "teacher", False, {"a": 0, "b": 1}, train, labels, train, labels, test, seed=0)
    given = replace(given, teacher=tmp_path / "teacher")
    (tmp_path / "made").mkdir()
    [made] = openvino(given, tmp_path / "made")
    whole = made_of_graph("teacher", given.teacher / FP32_GRAPH, "fp32", 0, given)
    spread = whole.scores.std(0).max()
    assert 0 < np.abs(made.scores - whole.scores).mean() < 0.2 * spread
    np.testing.assert_allclose(made.call(test[0])[0], made.scores[0], atol=1e-6)
    tokenizer = (given.teacher / FP32_GRAPH).with_name("tokenizer.json").stat().st_size
    files = sum((tmp_path / "made" / file).stat().st_size for file in ("model.xml", "model.bin"))
    assert made.size_bytes == files + tokenizer
