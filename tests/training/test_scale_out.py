import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]


def train(folder, size, launcher=(), resumed=()):
    command = [
        sys.executable,
        *launcher,
        "-m",
        "tests.helpers.two_processes",
        str(folder),
        str(size),
        *map(str, resumed),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "facts.json").read_text())


def test_two_processes_train_every_method_as_one_with_twice_the_batch(tmp_path):
    together, alone = train(tmp_path / "two", 4, TWO), train(tmp_path / "one", 8)
    for method, facts in together.items():
        assert (facts["processes"], alone[method]["processes"]) == (2, 1)
        assert facts["student_wrapped"]
        assert facts["equal_everywhere"]
        assert not facts["teacher_wrapped"]
        assert facts["moved"] > 1e-3, f"{method} trained nothing"
        ours, theirs = (load_file(tmp_path / n / method / "model.safetensors") for n in ("two", "one"))
        assert ours.keys() == theirs.keys()
        assert not [name for name in ours if "projections" in name]
        # Calibration sees padding too, of which smaller batches have less.
        tolerance = 0.03 if method == "learned ranges" else 1e-5
        assert facts["metrics"] == pytest.approx(alone[method]["metrics"], rel=max(1e-3, tolerance))
        assert facts["predictions"] == alone[method]["predictions"]
        assert facts["predictions"][0] == 13
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, rtol=0, atol=tolerance, msg=f"{method}: {name}")
    # What two processes began one goes on with: as many rows a step.
    train(tmp_path / "resumed", 8, resumed=("minilmv2", tmp_path / "two" / "minilmv2" / "checkpoint-10"))
    ours, theirs = (load_file(tmp_path / n / "minilmv2" / "model.safetensors") for n in ("resumed", "one"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5, msg=name)
