"""An artefact on the Hub: what is downloaded, and what is said where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemin_hf.runtime import load
from tests.helpers.hub_server import HubServer
from tests.runtime.conftest import TEXTS

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from edgemin_hf.runtime import load
try:
    model = load(sys.argv[1], verify=True)
except ValueError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([model.predict(sys.argv[2:]).tolist(), sorted({"torch", "transformers"} & sys.modules.keys())]))
"""


@pytest.fixture
def ask(tmp_path):
    """Load a repository in another process, as huggingface_hub reads its environment once, at import."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    inherited |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", "PYTHONPATH": str(ROOT)}

    def asked(endpoint, repo, *texts):
        command = [sys.executable, "-c", SCRIPT, repo, *texts]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env={**inherited, "HF_ENDPOINT": endpoint},
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


@pytest.mark.long
def test_what_is_needed_is_downloaded_and_works_without_the_network_afterwards(made, ask):
    folder = made("text_classification")[1]
    expected = load(folder).predict(TEXTS).tolist()
    with HubServer("token") as hub:
        hub.seed("me/edge", folder)
        assert ask(hub.endpoint, "me/edge", *TEXTS) == [expected, []]
        downloaded = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
        assert {"edgemin.json", "config.json", "tokenizer.json", "model.onnx"} <= downloaded
        assert not {"model.safetensors", "vocab.txt"} & downloaded
        told = ask(hub.endpoint, "me/nowhere")
        assert told.startswith("me/nowhere: no folder, and not loaded from the Hub (")
        assert "\n" not in told
        hub.seed("me/plain", folder).files.pop("edgemin.json")
        assert "holds no edgemin.json; expected: a folder that" in ask(hub.endpoint, "me/plain")
    assert ask(hub.endpoint, "me/edge", *TEXTS) == [expected, []]
