"""The graphs load in the oldest ONNX Runtime that their manifest claims, and give there what they give here."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from edgemin_hf import QuantizationConfig, export_onnx
from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.quantization.native import calibrate, prepare_qat
from tests.helpers.models import FAMILIES, batch, sentences, tiny

PYTHON = os.environ.get("OLDEST_ONNXRUNTIME")
"""The interpreter of an environment with the oldest ONNX Runtime; `make test-oldest` makes one."""
TEXTS = [text for text, _ in sentences(24, seed=7)]
IDS = [[2, *range(first, first + 7), 3] for first in range(5, 60, 5)]
RUN = """
import json, sys
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
ids = numpy.array(json.loads(sys.argv[2]))
feed = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
outputs = session.run(None, {node.name: feed[node.name] for node in session.get_inputs()})
print(json.dumps([onnxruntime.__version__, outputs[0].tolist()]))
"""


def run(python, graph):
    told = subprocess.run([python, "-c", RUN, graph, json.dumps(IDS)], capture_output=True, text=True, check=True)
    version, logits = json.loads(told.stdout)
    return version, np.array(logits)


@pytest.mark.skipif(PYTHON is None, reason="needs OLDEST_ONNXRUNTIME, as `make test-oldest` sets it")
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_load_in_the_oldest_runtime(family, weights, tmp_path, tokenizer):
    model = tiny(family)
    prepare_qat(model, QuantizationConfig(weights=weights, embeddings="int4"))
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False))
    calibrate(model, [batch(), inputs], lambda one: model(**one))
    folder = export_onnx(model.eval(), tokenizer, tmp_path / "out", texts=TEXTS).folder
    graphs = [entry for entry in read_manifest(folder).entries if entry.runtime == "onnxruntime"]
    assert [entry.precision for entry in graphs] == ["fp32", weights]
    for entry in graphs:
        version, found = run(PYTHON, folder / entry.file)
        assert version.startswith(f"{entry.min_runtime}.")
        expected = run(sys.executable, folder / entry.file)[1]
        if entry.precision != "int8":
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
            continue
        # Releases round sums otherwise in the last bit: in a text or two a value falls to the other side of its grid.
        assert np.median(np.abs(found - expected).max(axis=1)) < 1e-3
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).mean())
