import json

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.long


def train(forks, folder, size, *resumed, processes=1):
    forks.run("tests.helpers.two_processes", folder, size, *resumed, processes=processes)
    return json.loads((folder / "facts.json").read_text())


def test_two_processes_train_every_method_as_one_with_twice_the_batch(tmp_path, forks):
    together, alone = train(forks, tmp_path / "two", 4, processes=2), train(forks, tmp_path / "one", 8)
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
    train(forks, tmp_path / "resumed", 8, "minilmv2", tmp_path / "two" / "minilmv2" / "checkpoint-10")
    ours, theirs = (load_file(tmp_path / n / "minilmv2" / "model.safetensors") for n in ("resumed", "one"))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5, msg=name)
