"""recipes/modernbert-small.yaml: its plan with ModernBERT-base's own shape, and a run with a tiny one in its place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, ModernBertConfig

from edgemin_hf.cli import main
from edgemin_hf.export.manifest import read_manifest
from tests.helpers.hub_server import HubServer, Repo
from tests.helpers.masked_words import HEAD, ordered_texts
from tests.helpers.models import tiny

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes/modernbert-small.yaml")
LIMIT = 50.0
"""Millions of parameters that the student is to stay below."""


@pytest.fixture
def changes(tmp_path, tokenizer):
    """Settings that name a teacher and texts in a folder, as `--set` takes them."""
    tokenizer.save_pretrained(tmp_path / "teacher")
    for name, count, seed in (("train", 120, 0), ("validation", 12, 1), ("test", 12, 2)):
        lines = [json.dumps({"text": text}) for text in ordered_texts(count, seed)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    settings = [f"task.{name}_file={tmp_path}/{name}.jsonl" for name in ("train", "validation", "test")]
    return [*settings, f"raw_text.files=[{tmp_path}/train.jsonl]", f"output_dir={tmp_path}/run"]


def arguments(changes, *options):
    return ["run", RECIPE, *options, *(part for change in changes for part in ("--set", change))]


def test_the_plan_tells_a_student_below_fifty_million_parameters(changes, tmp_path):
    """Where the Hub serves the teacher's configuration and a tokenizer, and no weights."""
    files = {file.name: file.read_bytes() for file in (tmp_path / "teacher").iterdir()}
    config = ModernBertConfig(architectures=["ModernBertForMaskedLM"]).to_json_string().encode()
    with HubServer("token") as hub:
        hub.repos["answerdotai/ModernBERT-base"] = Repo(files={**files, "config.json": config})
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        done = subprocess.run(
            [sys.executable, "-m", "edgemin_hf", *arguments(changes, "--dry-run")], cwd=tmp_path, capture_output=True,
            env={**inherited, **settings, "PYTHONPATH": str(ROOT)}, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = done.stdout.splitlines()
    for stage in ("distill", "task_distill", "quantize"):
        row = next(line.split() for line in plan if line.startswith(stage))
        assert row[3] == "10x512/8/768"
        assert 40 < float(row[4]) < LIMIT, stage
    assert "test_file: 12 different texts" in plan
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_tiny_teacher_goes_all_the_way(changes, tmp_path):
    tiny("modernbert", head=HEAD).save_pretrained(tmp_path / "teacher")
    small = ["task.max_length=24", "raw_text.max_length=24", "raw_text.validation_blocks=4", "threads=1"]
    small += ["task.pseudo_perplexity_texts=3", "student.num_hidden_layers=2", "student.hidden_size=16"]
    small += ["student.num_attention_heads=2", "student.intermediate_size=32", "distill.teacher_layer=3"]
    small += ["distill.relation_heads=8", "distill.warmup_steps=1", "task_distill.warmup_steps=1"]
    small += [f"{stage}.max_steps=3" for stage in ("distill", "task_distill", "quantize")]
    small += [f"{stage}.per_device_train_batch_size=8" for stage in ("distill", "task_distill", "quantize")]
    small += [f"teacher.model={tmp_path}/teacher", "benchmark.sentences=4"]
    assert main(arguments([*changes, *small])) == 0
    artefact = tmp_path / "run/artefact"
    manifest = read_manifest(artefact)
    assert (manifest.task, manifest.pipeline_tag) == ("masked_lm", "fill-mask")
    assert [entry.precision for entry in manifest.entries] == ["fp32", "fp32", "int8"]
    for head in (AutoModelForMaskedLM, AutoModelForSequenceClassification):  # as others will load it
        model, told = head.from_pretrained(artefact, output_loading_info=True)
        inner = [str(name) for name in told["missing_keys"] if str(name).startswith("model.")]
        assert not inner
    assert model.config.hidden_size == 16
    assert AutoTokenizer.from_pretrained(artefact).mask_token == "[MASK]"
