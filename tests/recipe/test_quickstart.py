"""The quickstart itself, on the real teacher and data: 25 minutes, so not in CI."""

import json
from pathlib import Path

import onnxruntime
import pytest
from transformers import AutoTokenizer

from edgemin_hf.cli import main
from tests.helpers.optimum import ORTModelForSequenceClassification, pipeline

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_quickstart_keeps_its_promises(tmp_path):
    recipe = ROOT / "recipes/quickstart.yaml"
    assert main(["run", str(recipe), "--set", f"output_dir={tmp_path / 'run'}"]) == 0
    artefact = tmp_path / "run/artefact"
    rows = json.loads((artefact / "benchmark.json").read_text())["rows"]
    by_row = {(row["model"], row["runtime"], row["precision"]): row for row in rows}
    teacher, student = by_row["teacher", "pytorch", "fp32"], by_row["student", "onnxruntime", "int8"]
    assert teacher["n"] == 3080
    assert teacher["value"] >= 0.93
    assert student["value"] >= 0.985 * teacher["value"]
    assert teacher["size_bytes"] >= 9 * student["size_bytes"]
    model = ORTModelForSequenceClassification.from_pretrained(
        artefact, subfolder="onnx", file_name="model_quantized.onnx"
    )
    tokenizer = AutoTokenizer.from_pretrained(artefact)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, accelerator="ort")
    assert classify("My new card has not arrived yet.")[0]["label"] == "card_arrival"
    assert onnxruntime.InferenceSession(artefact / "onnx/model.onnx")
