"""`edgemin pull`: what is downloaded and checked, and what is said where there is no artefact."""

import hashlib
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from edgemin_hf.cli import main
from edgemin_hf.runtime import pull as public
from edgemin_hf.runtime import pull as pull_artefact
from edgemin_hf.utils.network import NETWORK_ERROR, XET_ERRORS
from tests.helpers.hub_server import HubServer

ROOT = Path(__file__).parents[2]
FILES = {
    "onnx/model.onnx": b"a graph",
    "onnx/model.onnx_data": b"its weights",
    "config.json": b"{}",
    "figures/size.svg": b"<svg/>",
}


def manifest(**changes):
    whole = hashlib.sha256(FILES["onnx/model.onnx"] + FILES["onnx/model.onnx_data"]).hexdigest()
    entry = {"file": "onnx/model.onnx", "runtime": "onnxruntime", "precision": "fp32", "sha256": whole, "bytes": 18}
    further = {name: hashlib.sha256(FILES[name]).hexdigest() for name in ("config.json", "figures/size.svg")}
    told = {"format": 1, "entries": [entry | {"external_data": ["onnx/model.onnx_data"]}], "further_files": further}
    return json.dumps(told | changes).encode()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub with a repository, "me/edge", and this process in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer("token") as server:
        told = {"endpoint": server.endpoint, "cache_dir": tmp_path / "cache", "token": False}
        module = sys.modules[public.__module__]
        monkeypatch.setattr(module, "snapshot_download", partial(snapshot_download, **told))
        server.repos["me/edge"] = repo = type(server.seed("me/edge", tmp_path / "here"))()
        repo.files |= {**FILES, "edgemin.json": manifest(), "README.md": b"![a](mine.png)", "mine.png": b"p"}
        repo.files |= {"notes.md": b"not listed", "onnx/old.onnx": b"not listed"}
        yield server


def below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_manifest_lists_and_the_card_with_its_pictures(hub, capsys):
    assert main(["pull", "me/edge"]) == 0
    assert capsys.readouterr().out == "edge\n"
    there = hub.repos["me/edge"].files
    listed = {name: there[name] for name in (*FILES, "edgemin.json", "README.md", "mine.png")}
    assert below(Path("edge")) == listed
    assert not any("notes.md" in request or "old.onnx" in request for request in hub.requests)
    assert [path.name for path in Path().iterdir()] == ["edge"]
    # A card that was changed on the Hub is nobody's mistake.
    there["README.md"] = b"changed"
    assert pull_artefact("me/edge", "other", revision="main") == Path("other")
    assert below(Path("other"))["README.md"] == b"changed"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": b"{ }"}, "me/edge: config.json has other bytes than edgemin.json tells"),
        ({"onnx/model.onnx_data": b"x"}, "me/edge: onnx/model.onnx has other bytes than edgemin.json tells"),
        ({"figures/size.svg": None}, "me/edge: lacks figures/size.svg, which edgemin.json lists"),
        ({"edgemin.json": None}, "me/edge: holds no edgemin.json; expected: what `edgemin push` pushed"),
        ({"edgemin.json": b"["}, "no JSON"),
        ({"edgemin.json": manifest(format=2)}, "me/edge: format: 2 of edgemin.json; allowed: 1"),
        ({"edgemin.json": manifest(entries=[{}])}, "me/edge: 'file' is missing in edgemin.json"),
        ({"edgemin.json": b'{"format": 1, "entries": []}'}, "me/edge: 'further_files' is missing in edgemin.json"),
        (
            {"edgemin.json": manifest(entries=[{"file": 3, "sha256": ""}])},
            "file: 3; allowed: one in the artefact's folder",
        ),
        ({"edgemin.json": manifest(further_files={"../x": ""})}, "file: ../x; allowed: one in the artefact's folder"),
    ],
)
def test_whole_or_not_at_all(hub, files, told, capsys):
    there = hub.repos["me/edge"].files
    for name, content in files.items():
        there.pop(name) if content is None else there.update({name: content})
    assert main(["pull", "me/edge"]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing_and_goes_on(hub, capsys, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.status, hub.failing = 503, "/me/edge/resolve/"
    assert main(["pull", "me/edge"]) == 2
    assert "me/edge: not downloaded from the Hub (" in capsys.readouterr().err
    assert list(Path().iterdir()) == []
    hub.status = None
    assert main(["pull", "me/edge"]) == 0


@pytest.mark.parametrize("kind", [NETWORK_ERROR, *XET_ERRORS])
def test_an_error_of_the_network_is_one_line_without_a_signature(monkeypatch, tmp_path, capsys, kind):
    def broken(*_, **__):
        raise kind("403 for https://cdn/x?Signature=secret\nand more")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[public.__module__], "snapshot_download", broken)
    assert main(["pull", "me/edge"]) == 2
    told = f"({kind.__name__}: 403 for https://cdn/x?... and more)"
    assert capsys.readouterr().err == f"edgemin: me/edge: not downloaded from the Hub {told}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_stays_as_it_is(hub, capsys):
    Path("edge").mkdir()
    Path("edge/mine.txt").write_text("mine")
    assert main(["pull", "me/edge"]) == 2
    assert "FOLDER: edge, which holds something already; allowed: a new folder" in capsys.readouterr().err
    assert below(Path("edge")) == {"mine.txt": b"mine"}
    assert hub.requests == []
    assert main(["pull", "me/nowhere"]) == 2
    assert "me/nowhere: not downloaded from the Hub (RepositoryNotFound" in capsys.readouterr().err


ALONE = """
import sys
for heavy in ("torch", "transformers", "datasets", "pydantic", "onnx"):
    sys.modules[heavy] = None  # an import of it fails
from edgemin_hf.cli import main
sys.exit(main(["pull", "me/edge", "edge"]))
"""


def test_the_base_installation_is_enough(hub, tmp_path):
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **settings, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run([sys.executable, "-c", ALONE], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert Path("edge/onnx/model.onnx").read_bytes() == FILES["onnx/model.onnx"]
