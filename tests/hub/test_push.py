"""What is published, and what is not; by a server of the Hub's protocol on this machine."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from edgemin_hf.cli import main
from edgemin_hf.export.manifest import Bound, Manifest, ManifestEntry, read_manifest, size_of
from edgemin_hf.hub import card, push
from edgemin_hf.hub.files import published_files
from edgemin_hf.hub.inherited import Inherited, inherited_from
from edgemin_hf.utils.content import digest_of
from edgemin_hf.utils.network import NETWORK_ERROR
from tests.helpers.hub_server import USER, HubServer, Repo, oid, with_hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_RightTokenOfTheTest"
WRONG_TOKEN = "hf_WrongTokenOfTheTest"
MODELS = {
    "model.safetensors": ("pytorch", "fp32"),
    "onnx/model.onnx": ("onnxruntime", "fp32"),
    "onnx/model_quantized.onnx": ("onnxruntime", "int8"),
}
CARD = """---
license: mit
language: [en]
---

# Mini

<!-- repository: "your-name/mini" -->
![a figure](figures/rivals.svg) ![elsewhere](https://example.org/x.png) ![above](../secret.png)

model = load("your-name/mini")  # not "your-name/minimal"
"""


@pytest.fixture
def hub(monkeypatch):
    """A Hub that this process pushes to."""
    with HubServer(TOKEN) as server:
        with_hub(monkeypatch, server, TOKEN)
        yield server


@pytest.fixture
def artefact(tmp_path):
    folder = tmp_path / "artefact"
    for name in ("config.json", "benchmark.json", "tokenizer.json", "figures/size.svg", "report.html", *MODELS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(1000) if name in MODELS else b"{}")
    (folder / "README.md").write_text(CARD)
    write_manifest(folder)
    return folder


def write_manifest(folder, gate=()):
    entries = [
        ManifestEntry(name, runtime, precision, size_of([folder / name]), digest_of([folder / name]), parameters=1)
        for name, (runtime, precision) in MODELS.items()
    ]
    manifest = Manifest(1, "text_classification", "text-classification", (), tuple(entries), gate=gate)
    manifest.listing(folder).write(folder)


def refused(artefact, repo_id="edge/mini", error=push.PushError, **arguments):
    with pytest.raises(error) as caught:
        push.push_artefact(artefact, repo_id, **arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_commit_of_what_the_manifest_lists_and_the_card_names_the_repository(hub, artefact):
    before = (artefact / "README.md").read_bytes()
    url = push.push_artefact(artefact, "edge/mini", private=True, message="The first")
    repo = hub.repos["edge/mini"]
    assert url == f"{hub.endpoint}/edge/mini/commit/{repo.sha}"
    assert repo.private
    sent = {path.relative_to(artefact).as_posix(): path.read_bytes() for path in artefact.rglob("*") if path.is_file()}
    sent["README.md"] = CARD.replace('"your-name/mini"', '"edge/mini"').encode()
    assert [(commit.repo, commit.message, commit.paths) for commit in hub.commits] == [
        ("edge/mini", "The first", sorted(sent))
    ]
    assert repo.files == sent
    assert len(hub.lfs) == 3
    assert (artefact / "README.md").read_bytes() == before


def test_again_commits_only_a_change_and_a_pulled_card_is_renamed_too(hub, artefact):
    # A bare name belongs to the token's user.
    first = push.push_artefact(artefact, "mini")
    unchanged = push.push_artefact(artefact, "mini")
    (artefact / "onnx/model.onnx").write_bytes(b"new")
    write_manifest(artefact)
    assert first == unchanged != push.push_artefact(artefact, "mini")
    assert [commit.repo for commit in hub.commits] == [f"{USER}/mini"] * 2
    repo = hub.repos[f"{USER}/mini"]
    assert repo.files["onnx/model.onnx"] == b"new"
    assert f'load("{USER}/mini")' in repo.files["README.md"].decode()
    assert 'load("other/x")' in card.naming(repo.files["README.md"].decode(), "other/x")
    assert not repo.private


def test_what_the_manifest_does_not_list_stays_here_and_is_named(hub, artefact, capsys, monkeypatch):
    for name in (".env", "notes.md", "checkpoint-4/optimizer.pt", "onnx/old.onnx", "figures/rivals.svg"):
        (artefact / name).parent.mkdir(exist_ok=True)
        (artefact / name).write_text(f"KEY={TOKEN}" if name == ".env" else "x")
    monkeypatch.setattr("edgemin_hf.cli.check_factory", lambda what: None)
    assert main(["push", str(artefact), "edge/mini"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == f"{hub.endpoint}/edge/mini/commit/{hub.repos['edge/mini'].sha}"
    left = "edgemin: left out, since edgemin.json does not list it: .env, checkpoint-4/, notes.md, onnx/old.onnx\n"
    assert left in said.err
    sent = hub.repos["edge/mini"].files
    assert "figures/rivals.svg" in sent  # which the card shows
    assert not {".env", "notes.md", "onnx/old.onnx"} & set(sent)


def test_a_dry_run_lists_sizes_and_sends_nothing(hub, artefact, capsys, monkeypatch):
    with_hub(monkeypatch, hub, None)
    assert main(["push", str(artefact), "edge/mini", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "10 files, 0.0 MB"
    assert re.fullmatch(r"onnx/model\.onnx +1,000 bytes", lines[6])
    assert hub.requests == []


def test_branch_tags_and_pull_request(hub, artefact):
    push.push_artefact(artefact, "edge/mini")
    repo, first = hub.repos["edge/mini"], hub.repos["edge/mini"].sha
    (artefact / "onnx/model.onnx").write_bytes(b"new")
    write_manifest(artefact)
    url = push.push_artefact(artefact, "edge/mini", revision="next", tags=["v2", "edge"])
    assert url.endswith(repo.branches["next"].sha)
    assert repo.sha == first
    assert repo.tags == dict.fromkeys(["v2", "edge"], repo.branches["next"].sha)
    # The same once more, as after a kill before the tags.
    del repo.tags["edge"]
    assert push.push_artefact(artefact, "edge/mini", revision="next", tags=["v2", "edge"]) == url
    assert "tag v2 stands at another commit" in refused(artefact, tags=["v2"])
    assert repo.sha == first
    opened = push.push_artefact(artefact, "edge/mini", create_pr=True)
    assert opened == f"{hub.endpoint}/edge/mini/discussions/1"
    assert repo.sha == first
    told = refused(artefact, error=ValueError, create_pr=True, tags=["v3"])
    assert told == "tags: v3 beside create_pr; allowed: one of the two"
    assert "tags: 'a b'; allowed: letters" in refused(artefact, error=ValueError, tags=["a b"])


def test_the_gate(hub, artefact, capsys):
    write_manifest(
        artefact, (Bound("retention", 0.97, 0.951), Bound("max_latency_ms", 2, 1), Bound("max_size_mb", 9, 9.3))
    )
    assert main(["push", str(artefact), "edge/mini"]) == 1
    assert capsys.readouterr().err == (
        "edgemin: 'edge/mini' was not pushed: retention: 0.951, which misses the 0.97 of the gate by 0.019; "
        "max_size_mb: 9.3, which misses the 9 of the gate by 0.3; allowed: what passes, or `edgemin push --force`\n"
    )
    assert hub.requests == []
    assert main(["push", str(artefact), "edge/mini", "--force"]) == 0
    write_manifest(artefact, (Bound("retention", 0.97, None),))
    assert "retention: not measured, and the gate asks for 0.97" in refused(artefact)
    write_manifest(artefact, (Bound("retention", 0.97, 0.97), Bound("max_size_mb", 9, 9)))
    push.push_artefact(artefact, "edge/mini")


def test_nothing_private_is_published(hub, artefact, tmp_path):
    hub.seed("edge/public", artefact)
    assert "exists and is public" in refused(artefact, "edge/public", private=True)
    assert hub.commits == []


@pytest.mark.parametrize("name", ["README.md", "config.json", *MODELS])
def test_a_missing_file_is_named(artefact, name):
    (artefact / name).unlink()
    assert refused(artefact, error=ValueError).endswith(f"lacks {name}")


def test_all_is_checked_before_the_first_request(hub, artefact):
    assert "edge/mini/more" in refused(artefact, "edge/mini/more", ValueError)
    (artefact / "report.html").write_text("other")
    assert "report.html: has other bytes than edgemin.json tells" in refused(artefact, error=ValueError)
    write_manifest(artefact)
    (artefact / "onnx/model_quantized.onnx").write_bytes(os.urandom(1000))
    assert "onnx/model_quantized.onnx: has other bytes than edgemin.json" in refused(artefact, error=ValueError)
    replace(read_manifest(artefact), entries=(), further_files={}).write(artefact)
    assert "edgemin.json: without further_files; expected" in refused(artefact, error=ValueError)
    (artefact / "edgemin.json").unlink()
    assert "holds no edgemin.json" in refused(artefact, error=ValueError)
    assert hub.requests == []


METADATA = {
    "license: apache 2.0": "README.md: license: apache 2.0; allowed: afl-3.0, ",
    "license: [mit, mine]": "README.md: license: mine; allowed: ",
    "license: 3": "README.md: license: 3; allowed: text",
    "language: [en, english]": "README.md: language: english; allowed: a code",
    "language: no": 'README.md: language: false; allowed: text, in quotes where YAML reads another thing ("no")',
    "datasets: [our own]": "README.md: datasets: our own; allowed: ids",
    "base_model: ./teacher": "README.md: base_model: ./teacher; allowed: ids of models on the Hub",
    "base_model: runs/teacher": "README.md: base_model: runs/teacher, which is a folder here; allowed: ids",
    "license: [": "README.md: metadata that can't be read (while parsing",
    "- a list": "README.md: metadata that can't be read (",
    "model-index: [{name: x, results: [{}]}]": "README.md: metadata that can't be read (",
    "tags: [1]": "README.md: tags: 1; allowed: text",
}


@pytest.mark.parametrize("metadata", METADATA)
def test_what_the_hub_would_refuse_of_a_card_is_refused_here(artefact, metadata, monkeypatch, tmp_path):
    (tmp_path / "runs/teacher").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(push, "HfApi")
    (artefact / "README.md").write_text(f"---\n{metadata}\n---\n# Mini\n")
    assert refused(artefact, error=ValueError).startswith(METADATA[metadata])


def test_what_the_hub_alone_knows_is_asked_before_the_repository_is_made(hub, artefact):
    (artefact / "README.md").write_text("---\nlibrary_name: refused\n---\n# Mini\n")
    assert 'Invalid metadata in README.md. - "library_name" is not allowed' in refused(artefact)
    assert hub.requests == ["POST /api/validate-yaml"]


@pytest.mark.parametrize("token", [WRONG_TOKEN, None])
def test_without_a_valid_token(hub, artefact, token, monkeypatch):
    with_hub(monkeypatch, hub, token)
    line = refused(artefact)
    assert line.startswith("'edge/mini' was not pushed: HTTP 401")
    assert "hf auth login" in line
    assert WRONG_TOKEN not in line
    assert hub.repos == {}


def test_a_hub_that_is_not_there(artefact, monkeypatch):
    monkeypatch.setattr(push, "HfApi", lambda: HfApi("http://127.0.0.1:9", token=TOKEN))
    assert re.search(r"can't be reached \(Connect(ion)?Error\)", refused(artefact))


def test_a_push_that_is_tried_again_shows_no_signature_and_says_what_it_left(hub, artefact, monkeypatch, caplog):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.status, hub.failing = 503, "/lfs/"
    line = refused(artefact)
    assert "/lfs/" in caplog.text
    assert hub.signature not in caplog.text + line
    assert TOKEN not in caplog.text + line
    assert "'edge/mini' was not pushed: HTTP 503" in line
    assert "the repository was created and may be empty" in line
    # Of one that was there before nothing is said, and it stays.
    again = refused(artefact)
    assert "was not pushed: HTTP 503" in again
    assert "was created" not in again
    assert hub.repos["edge/mini"].files == {}


def test_a_push_whose_tag_fails_is_told_to_be_there(hub, artefact):
    hub.status, hub.failing = 503, "/api/models/edge/mini/tag/"
    line = refused(artefact, tags=["v1"])
    url = f"{hub.endpoint}/edge/mini/commit/{hub.repos['edge/mini'].sha}"
    assert line == f"'edge/mini' was pushed ({url}), but not tagged: HTTP 503, Forced by the test"
    hub.status = None
    assert push.push_artefact(artefact, "edge/mini", tags=["v1"]) == url
    assert len(hub.commits) == 1


def test_a_status_that_only_proxies_have():
    error = RuntimeError("broke off")
    error.__cause__ = NETWORK_ERROR("https://storage/x?signature=secret")
    error.__cause__.response = SimpleNamespace(status_code=520)
    assert push.reason(error) == "HTTP 520, without a reason"
    error.__cause__.response.status_code = 404
    assert push.reason(error) == "HTTP 404, Not Found"


KILLED = """
import sys
from edgemin_hf.hub.push import push_artefact
push_artefact(sys.argv[1], "edge/mini")
"""


@pytest.mark.long
def test_killed_in_the_middle_of_an_upload_nothing_is_seen_and_the_next_push_goes_on(hub, artefact, tmp_path):
    hub.repos["edge/mini"] = Repo(files={"README.md": b"the version before"})
    before = hub.repos["edge/mini"].sha
    hub.stalled = f"/lfs/{oid('x.onnx', (artefact / 'onnx/model.onnx').read_bytes())}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with subprocess.Popen([sys.executable, "-c", KILLED, str(artefact)], env={**inherited, **settings}) as process:
        started = time.monotonic()
        while len(hub.lfs) < 2 and process.poll() is None and time.monotonic() - started < 60:
            time.sleep(0.02)
        process.kill()
    assert len(hub.lfs) == 2
    assert hub.commits == []
    assert hub.repos["edge/mini"].sha == before
    hub.stalled, sent = None, len(hub.requests)
    push.push_artefact(artefact, "edge/mini")
    assert [one for one in hub.requests[sent:] if one.startswith("PUT")] == [
        f"PUT /lfs/{oid('x.onnx', (artefact / 'onnx/model.onnx').read_bytes())}"
    ]
    assert len(hub.commits) == 1
    assert set(hub.repos["edge/mini"].files) == set(published_files(artefact).names)


PRIVATE = {
    "README.md": ("output_dir: {home}/run", "README.md: holds the user's folder"),
    "environment.json": (TOKEN, "environment.json: holds a token"),
    "config.json": ('{{"key": "hf_' + "aB" * 17 + '"}}', "config.json: holds a token"),
    "tokenizer.json": ("api_org_" + "aB3" * 11 + "z", "tokenizer.json: holds a token"),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_nothing_private_is_sent(artefact, name, monkeypatch):
    monkeypatch.delattr(push, "HfApi")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    text, found = PRIVATE[name]
    (artefact / name).write_text(text.format(home="/home/somebody"))
    write_manifest(artefact)
    assert found in refused(artefact, error=ValueError)


CARDS = {
    "license: mit\nlanguage: de\ndatasets: [org/data, ./ours]\n": Inherited("mit", {}, ("de",), ("org/data",)),
    "license: other\nlicense_name: ours\nlicense_link: https://x.org\nlanguage: [en, english]\n": Inherited(
        "other", {"license_name": "ours", "license_link": "https://x.org"}, ("en",)
    ),
    "license: [mit, gpl-3.0]\n": Inherited(),
    "license: Apache 2.0\nlanguage: no\n": Inherited(),
    "license: [\n": Inherited(),
}


@pytest.mark.parametrize("metadata", CARDS)
def test_what_a_teachers_card_tells(tmp_path, metadata):
    assert inherited_from(tmp_path) == Inherited()
    (tmp_path / "README.md").write_text(f"---\n{metadata}---\n# Teacher\n")
    assert inherited_from(tmp_path) == CARDS[metadata]


def test_a_manifest_that_leaves_its_folder_is_refused(artefact):
    told = json.loads((artefact / "edgemin.json").read_text())
    for odd in ("../secret", "/etc/passwd", "..\\secret"):
        (artefact / "edgemin.json").write_text(json.dumps(told | {"further_files": {odd: "0" * 64}}))
        assert "allowed: one in the artefact's folder" in refused(artefact, error=ValueError)
