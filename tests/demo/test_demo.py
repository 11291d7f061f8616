"""The demo's server, what it fetches and what its page refers to; `make clients` runs the page itself in a browser."""

import base64
import hashlib
import http.client
import http.server
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading

import pytest

from edgemin_hf.cli import main
from edgemin_hf.demo import fetch_modules, make_server, modules
from edgemin_hf.demo.server import HEADERS, PAGE
from edgemin_hf.runtime.loading import MODELS

GRAPH = {"file": "onnx/model.onnx", "runtime": "onnxruntime", "precision": "fp32", "external_data": ["onnx/more_data"]}
FILES = {
    "edgemin.json": json.dumps({"format": 1, "task": "regression", "texts": [], "entries": [GRAPH]}),
    "config.json": "{}",
    "tokenizer.json": "{}",
    "onnx/model.onnx": "graph",
    "onnx/more_data": "weights",
    "README.md": "a card",
    ".env": "a token",
    "onnx/unlisted.onnx": "another graph",
}


def written(folder, files):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def artefact(tmp_path):
    return written(tmp_path / "artefact", FILES)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The modules' folder, filled: nothing is fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "edgemin" / "-".join(["demo", *(package.version for package in modules.PACKAGES)])
    names = [file.rpartition("/")[2] for package in modules.PACKAGES for file in package.files]
    return written(folder, dict.fromkeys(names, "code"))


@pytest.fixture
def ask(artefact, cached):
    """Ask a running server for an address."""
    with make_server(artefact, 0, fetch_modules()) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

        def asked(path, method="GET", host=None):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.request(method, path, headers={"Host": host or f"127.0.0.1:{server.server_port}"})
            answer = connection.getresponse()
            return answer, answer.read().decode()

        yield asked
        server.shutdown()


def test_it_serves_the_page_the_modules_and_what_the_manifest_lists(ask):
    for path, kind, text in (
        ("/", "text/html; charset=utf-8", (PAGE / "index.html").read_text()),
        ("/style.css", "text/css; charset=utf-8", (PAGE / "style.css").read_text()),
        ("/demo.js?again", "text/javascript; charset=utf-8", (PAGE / "demo.js").read_text()),
        ("/modules/ort-wasm-simd-threaded.wasm", "application/wasm", "code"),
        ("/artefact/edgemin.json", "application/json; charset=utf-8", FILES["edgemin.json"]),
        ("/artefact/onnx/model.onnx", "application/octet-stream", "graph"),
        ("/artefact/onnx/more_data", "application/octet-stream", "weights"),
    ):
        answer, found = ask(path)
        assert (answer.status, found) == (200, text), path
        told = dict(answer.getheaders())
        assert told.items() >= {"Content-Type": kind, "Content-Length": str(len(text.encode())), **HEADERS}.items()
    answer, found = ask("/", "HEAD")
    assert (answer.status, found) == (200, "")


def test_a_page_is_isolated_and_loads_nothing_from_elsewhere(ask):
    told = ask("/")[0]
    assert told.getheader("Cross-Origin-Opener-Policy") == "same-origin"
    assert told.getheader("Cross-Origin-Embedder-Policy") == "require-corp"
    assert told.getheader("Content-Security-Policy").startswith("default-src 'self';")


@pytest.mark.parametrize(
    "path",
    [
        "/artefact/README.md",
        "/artefact/.env",
        "/artefact/onnx/unlisted.onnx",
        "/artefact/",
        "/modules",
        "/artefact/../artefact/config.json",
        "/artefact/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/../../../../etc/passwd",
        "/server.py",
    ],
)
def test_it_serves_nothing_else(ask, path):
    assert ask(path)[0].status == 404


def test_other_names_and_methods_are_refused(ask):
    assert ask("/", host="evil.example:80")[0].status == 403
    assert ask("/", host="localhost:80")[0].status == 200
    assert ask("/", "POST")[0].status == 501


def test_a_browser_that_goes_leaves_no_traceback(artefact, cached, capfd):
    (artefact / "onnx" / "model.onnx").write_bytes(bytes(20_000_000))
    with make_server(artefact, 0, cached) as server:
        server.daemon_threads = False  # closing it waits for all answers
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for request in (b"GET /artefact/onnx/model.onnx", b"GET http://["):
            with socket.create_connection(("127.0.0.1", server.server_port)) as browser:
                browser.sendall(request + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                browser.recv(1)
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        server.shutdown()
    assert capfd.readouterr().err == ""


def test_a_graph_of_one_shape_reads_no_text_and_is_not_offered(artefact, cached, capsys):
    fixed = GRAPH | {"file": "onnx/model_fixed.onnx", "external_data": [], "shape": [1, 128]}
    told = json.loads(FILES["edgemin.json"])
    written(artefact, {"edgemin.json": json.dumps(told | {"entries": [fixed, GRAPH]}), "onnx/model_fixed.onnx": "g"})
    with make_server(artefact, 0, cached) as server:
        assert [name for name in server.routes if name.endswith(".onnx")] == ["/artefact/onnx/model.onnx"]
    assert "!entry.shape" in (PAGE / "demo.js").read_text()
    written(artefact, {"edgemin.json": json.dumps(told | {"entries": [fixed]})})
    assert main(["demo", str(artefact)]) == 2
    assert "no graph for ONNX Runtime that reads any text" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("node") is None, reason="without Node")
def test_a_large_vocabulary_has_a_softmax():
    module = base64.b64encode((PAGE / "answers.js").read_bytes()).decode()
    code = f"""
        import {{ softmax }} from "data:text/javascript;base64,{module}";
        const row = new Float32Array(500000); row[7] = 3;
        console.log(softmax(row)[7] * (Math.exp(3) + 499999) / Math.exp(3));
    """
    done = subprocess.run(["node", "--input-type=module", "-e", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) == pytest.approx(1)


def test_a_file_that_was_taken_away_is_not_there(ask, artefact):
    (artefact / "config.json").unlink()
    assert ask("/artefact/config.json")[0].status == 404


def test_bad_input_is_one_line(artefact, cached, tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used = other.getsockname()[1]
        for arguments, told in (
            ([str(artefact), "--port", str(used)], f"port: {used} is in use; allowed: another one, or 0"),
            ([str(artefact), "--port", "70000"], "port: 70000; allowed: 0 to 65535"),
            ([str(tmp_path)], "holds no edgemin.json; expected: a folder"),
        ):
            assert main(["demo", *arguments]) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert told in line
    (artefact / "onnx" / "more_data").unlink()
    assert main(["demo", str(artefact)]) == 2
    assert "more_data: is missing; expected: a file, which the manifest lists" in capsys.readouterr().err
    written(artefact, {"edgemin.json": FILES["edgemin.json"].replace("onnxruntime", "openvino")})
    assert main(["demo", str(artefact)]) == 2
    assert "no graph for ONNX Runtime" in capsys.readouterr().err


def test_ctrl_c_ends_it(artefact, cached):
    command = [sys.executable, "-m", "edgemin_hf", "demo", str(artefact), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def heeding():
        """Let it heed Ctrl-C, which tests that a shell runs in the background do not."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(command, preexec_fn=heeding, **pipes) as running:
        try:
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+ - Ctrl-C ends it\n", running.stdout.readline())
            running.send_signal(signal.SIGINT)
            rest, errors = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, rest, errors) == (0, "\n", "")


def tarball(members):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return written.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one package, whose tarball also wants to be written beside the folder."""
    content = tarball({"package/dist/some.mjs": "code", "package/../../evil": "x", "package/README.md": "words"})
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/npm/@scope/some/-/some-1.2.3.tgz" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    def pinned(*files, digest=None, version="1.2.3"):
        integrity = "sha512-" + base64.b64encode(digest or hashlib.sha512(content).digest()).decode()
        monkeypatch.setattr(modules, "PACKAGES", (modules.Package("@scope/some", version, integrity, files),))

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/npm/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield pinned, asked
        server.shutdown()


def test_modules_are_fetched_once_and_only_what_is_named_is_kept(registry, tmp_path, capsys):
    pinned, asked = registry
    pinned("dist/some.mjs")
    folder = fetch_modules()
    assert capsys.readouterr().out.startswith("fetching transformers.js 1.2.3 from 127.0.0.1 into ")
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [("some.mjs", "code")]
    assert not [file for file in tmp_path.rglob("*") if file.name == "evil"]
    assert fetch_modules() == folder
    assert len(asked) == 1
    assert capsys.readouterr().out == ""


def test_other_bytes_than_were_pinned_are_not_kept(registry, tmp_path):
    pinned, _ = registry
    pinned("dist/some.mjs", digest=bytes(64))
    with pytest.raises(OSError, match=r"127\.0\.0\.1 gave other bytes than were pinned"):
        fetch_modules(tell=lambda line: None)
    assert not list((tmp_path / "cache" / "edgemin").iterdir())


def test_a_registry_that_does_not_answer_is_told(registry, artefact, monkeypatch, capsys):
    pinned, _ = registry
    pinned("dist/some.mjs", version="9.9.9")
    assert main(["demo", str(artefact)]) == 1
    assert (
        "@scope/some 9.9.9: 127.0.0.1 says: HTTP Error 404: Not Found; expected: a network this once"
        in capsys.readouterr().err
    )
    monkeypatch.setenv("npm_config_registry", "ftp://somebody:secret@127.0.0.1")
    assert main(["demo", str(artefact)]) == 2
    assert "npm_config_registry: no address" in capsys.readouterr().err
    monkeypatch.setenv("npm_config_registry", "http://somebody:secret@127.0.0.1")
    assert main(["demo", str(artefact)]) == 2
    told = capsys.readouterr().err
    assert "without a user or password" in told
    assert "secret" not in told


def test_what_the_page_refers_to_is_there():
    page = (PAGE / "index.html").read_text()
    code = {file.name: file.read_text() for file in PAGE.glob("*.js")}
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    for text in code.values():
        named |= {name.removeprefix("./") for name in re.findall(r'from "(\./[^"]+)"', text)}
    assert named == {file.name for file in PAGE.iterdir()} - {"index.html"}
    mapped = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)[1])["imports"]
    imported = {name for text in code.values() for name in re.findall(r'from "([^."][^"]*)"', text)}
    assert imported <= mapped.keys()
    modules_named = {*mapped.values(), *re.findall(r"/modules/[\w.-]+", "".join(code.values()))}
    taken = {f"/modules/{file.rpartition('/')[2]}" for package in modules.PACKAGES for file in package.files}
    assert modules_named == taken
    ids = set(re.findall(r'\bid="([^"]+)"', page))
    assert set(re.findall(r'\bat\("([^"]+)"\)', code["demo.js"])) <= ids
    assert "http" not in page + (PAGE / "style.css").read_text() + "".join(code.values())


def test_every_task_has_a_view():
    shown = set(re.findall(r"^  (\w+): \{$", (PAGE / "tasks.js").read_text(), re.MULTILINE))
    assert shown == {*MODELS, "masked_lm"}
