"""The wheel without extras: what a device installs. Needs a package index."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASKED = """
import json, sys
from importlib.util import find_spec
from edgemin_hf.runtime import load
model = load(sys.argv[1], verify=True)
heavy = {name: find_spec(name) is not None for name in ("torch", "transformers", "datasets", "pydantic", "onnx")}
print(json.dumps([heavy, model.predict(["where is my card", "late"]).tolist()]))
"""


@pytest.mark.long
def test_without_extras_it_runs_artefacts_and_has_no_pytorch(made, tmp_path):
    folder = made("text_classification")[1]
    built = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path / "wheel"), str(ROOT)]
    _done(built, "no package index to build with")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    pinned = ["--constraint", str(ROOT / "constraints.txt")]
    _done([python, "-m", "pip", "install", *pinned, str(wheel)], "no package index")
    alone = {"env": {**os.environ, "PYTHONPATH": ""}, "cwd": tmp_path, "capture_output": True, "text": True}
    asked = subprocess.run([python, "-c", ASKED, str(folder)], check=False, **alone)
    assert asked.returncode == 0, asked.stderr
    heavy, labels = json.loads(asked.stdout)
    assert not any(heavy.values()), heavy
    assert set(labels) <= {"lost", "found", "neither"}
    edgemin = python.with_name("edgemin")
    listed = subprocess.run([python, "-m", "pip", "check"], check=False, **alone)
    assert listed.returncode == 0, listed.stdout
    predicted = subprocess.run([edgemin, "predict", str(folder), "--text", "where is my card"], check=True, **alone)
    assert json.loads(predicted.stdout)["label"] == labels[0]
    run = subprocess.run([edgemin, "run", "recipe.yaml"], check=False, **alone)
    assert run.returncode == 2
    assert run.stderr == "edgemin: edgemin run without torch; allowed: after pip install 'edgemin-hf[train]'\n"
    assert subprocess.run([edgemin, "verify", str(folder)], check=False, **alone).returncode == 0


def _done(command, reason):
    """Run pip; skip where it finds no index."""
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    offline = ("No matching distribution", "NewConnectionError", "Failed to establish", "Max retries")
    if done.returncode and any(word in done.stderr + done.stdout for word in offline):
        pytest.skip(reason)
    assert done.returncode == 0, done.stderr
