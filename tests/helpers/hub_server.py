"""A local server that speaks as much of the Hub's HTTP protocol as pushing and downloading a model, or streaming a
dataset, takes."""

import base64
import contextlib
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import HfApi, constants

from edgemin_hf.hub import access, privacy, push

USER = "tester"


class Commit(NamedTuple):
    repo: str
    message: str
    paths: list[str]


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    branches: dict[str, "Repo"] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """Stand for the commit: 40 hex digits that change with the files."""
        listing = "".join(f"{path}:{oid(path, data)}\n" for path, data in sorted(self.files.items()))
        return hashlib.sha256(listing.encode()).hexdigest()[:40]


def is_lfs(path: str) -> bool:
    return path.endswith((".onnx", ".safetensors"))


def oid(path: str, data: bytes) -> str:
    """What the Hub knows a file's content by: SHA-256 for LFS, else git's blob id."""
    if is_lfs(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


class HubServer:
    """Serve from memory on a free port of 127.0.0.1 while used as a context manager.

    `token` is the only one it accepts: writes and private repositories need it, and another one is refused everywhere.
    `requests` lists "METHOD path" of all requests, `status` makes it answer all of them with that error, or those whose
    paths begin with `failing`; what is written to `stalled` waits and then fails, when it is reset.
    """

    def __init__(self, token: str) -> None:
        self.token = token
        self.repos: dict[str, Repo] = {}
        self.commits: list[Commit] = []
        self.requests: list[str] = []
        self.status: int | None = None
        self.failing = "/"
        self.stalled: str | None = None
        self.lfs: dict[str, bytes] = {}
        # Uploads go to signed URLs without the token, as they do on the Hub.
        self.signature = secrets.token_hex(8)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stalled = None
        self._server.shutdown()
        self._server.server_close()

    def seed(self, repo_id: str, folder: Path, *, private: bool = False, gated: bool = False) -> Repo:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repos[repo_id] = Repo(private, gated, files)
        return self.repos[repo_id]


def with_hub(monkeypatch, hub: HubServer, token: str | None) -> None:
    """Have pushes of this process go to a server, with a token, or with None without one."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)  # by which a commit's address is read
    for module in (access, push):
        monkeypatch.setattr(module, "HfApi", lambda: HfApi(hub.endpoint, token=token or False))
    for module in (access, privacy):
        monkeypatch.setattr(module, "get_token", lambda: token)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": oid(path, data)}


class _HubError(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        path = unquote(url.path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            if self.hub.status is not None and path.startswith(self.hub.failing):
                raise _HubError(self.hub.status, "Forced by the test")
            method = "GET" if self.command == "HEAD" else self.command
            for route_method, pattern, handle in _ROUTES:
                if method == route_method and (match := re.fullmatch(pattern, path)):
                    return handle(self, *match.groups())
            raise _HubError(404, f"No such route: {self.command} {path}")
        except _HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._reply({"error": error.message}, error.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass

    def _reply(
        self, content: bytes | dict[str, Any] | list[Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(BrokenPipeError):  # of a client that a test killed
                self.wfile.write(data)

    def _authenticated(self) -> bool:
        given = self.headers.get("Authorization")
        if given not in (None, f"Bearer {self.hub.token}"):
            raise _HubError(401, "Invalid credentials in Authorization header")
        return given is not None

    def _repo(self, repo_id: str, *, write: bool = False, revision: str = "main") -> Repo:
        authenticated = self._authenticated()
        if write and not authenticated:
            raise _HubError(401, "Invalid username or password.")
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo.private and not authenticated):
            raise _HubError(404, "Repository not found", "RepoNotFound")
        for name, branch in {"main": repo, **repo.branches}.items():
            if revision in (name, branch.sha, *(tag for tag, sha in repo.tags.items() if sha == branch.sha)):
                return branch
        raise _HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def whoami(self) -> None:
        if not self._authenticated():
            raise _HubError(401, "Invalid username or password.")
        self._reply({"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}})

    def create(self) -> None:
        if not self._authenticated():
            raise _HubError(401, "Invalid username or password.")
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or USER}/{asked['name']}"
        exists = repo_id in self.hub.repos
        self.hub.repos.setdefault(repo_id, Repo(private=asked.get("private", asked.get("visibility") == "private")))
        self._reply({"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}, 409 if exists else 200)

    def validate_yaml(self) -> None:
        if json.loads(self.body)["content"].startswith("---\nlicense: [\n"):
            return self._reply({"errors": [{"message": "YAML:\nunclosed list"}], "warnings": []}, 400)
        if "library_name: refused" in json.loads(self.body)["content"]:
            return self._reply({"errors": [{"message": '"library_name" is not allowed'}], "warnings": []}, 400)
        self._reply({"errors": [], "warnings": []})

    def info(self, repo_id: str, revision: str | None) -> None:
        repo = self._repo(repo_id, revision=revision or "main")
        siblings = [{"rfilename": path} for path in sorted(repo.files)]
        facts = {"private": repo.private, "gated": "manual" if repo.gated else False, "sha": repo.sha}
        self._reply({"id": repo_id, "siblings": siblings, **facts})

    def tree(self, repo_id: str, revision: str, folder: str | None) -> None:
        files = sorted(self._repo(repo_id, revision=revision).files.items())
        inside = [(path, data) for path, data in files if folder is None or path.startswith(f"{folder}/")]
        if folder is not None and not inside:
            raise _HubError(404, "Entry not found", "EntryNotFound")
        self._reply([_entry(path, data) for path, data in inside])

    def paths_info(self, repo_id: str, revision: str) -> None:
        files = self._repo(repo_id, revision=revision).files
        asked = parse_qs(self.body.decode()).get("paths") or json.loads(self.body or b"{}").get("paths", [])
        found = [_entry(path, files[path]) for path in asked if path in files]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
        self._reply([*found, *({"type": "directory", "path": path, "oid": "0" * 40} for path in folders)])

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(repo_id, revision=revision)
        if repo.gated:
            raise _HubError(403, "Access to this model is restricted", "GatedRepo")
        if path not in repo.files:
            raise _HubError(404, "Entry not found", "EntryNotFound")
        data = repo.files[path]
        headers = {"ETag": f'"{oid(path, data)}"', "X-Repo-Commit": repo.sha}
        if (asked := self.headers.get("Range")) is None:
            return self._reply(data, headers=headers)
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._reply(data[first : last + 1], 206, headers)

    def preupload(self, repo_id: str, revision: str) -> None:
        stored = self._repo(repo_id, write=True, revision=revision).files
        modes = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False}
            modes.append(mode | ({"oid": oid(path, stored[path])} if path in stored else {}))
        self._reply({"files": modes})

    def lfs_batch(self, repo_id: str) -> None:
        self._repo(repo_id, write=True)
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.hub.lfs:
                href = f"{self.hub.endpoint}/lfs/{item['oid']}"
                verify = {"href": f"{self.hub.endpoint}/{repo_id}.git/info/lfs/objects/verify"}
                item["actions"] = {"upload": {"href": f"{href}?signature={self.hub.signature}"}, "verify": verify}
        self._reply({"transfer": "basic", "objects": objects})

    def lfs_put(self, sha256: str) -> None:
        if self.hub.stalled == urlsplit(self.path).path:
            while self.hub.stalled is not None:
                time.sleep(0.02)
            raise _HubError(503, "Stalled by the test")
        if self.query.get("signature") != [self.hub.signature] or hashlib.sha256(self.body).hexdigest() != sha256:
            raise _HubError(403, "Wrong signature or content")
        self.hub.lfs[sha256] = self.body
        self._reply(b"")

    def lfs_verify(self, repo_id: str) -> None:
        self._repo(repo_id, write=True)
        asked = json.loads(self.body)
        if len(self.hub.lfs.get(asked["oid"], b"")) != asked["size"]:
            raise _HubError(404, "Object not found")
        self._reply({})

    def refs(self, repo_id: str) -> None:
        repo = self._repo(repo_id)
        branches = {"main": repo, **repo.branches}
        self._reply(
            {
                "branches": [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": b.sha} for n, b in branches.items()],
                "converts": [],
                "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": sha} for n, sha in repo.tags.items()],
            }
        )

    def branch(self, repo_id: str, name: str) -> None:
        repo = self._repo(repo_id, write=True)
        if name in repo.branches:
            raise _HubError(409, "Reference already exists")
        repo.branches[name] = Repo(repo.private, repo.gated, dict(repo.files))
        self._reply({})

    def tag(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True, revision=revision)
        self.hub.repos[repo_id].tags[json.loads(self.body)["tag"]] = repo.sha
        self._reply({})

    def commit(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True, revision=revision)
        pull_request = self.query.get("create_pr") == ["1"]
        if pull_request:
            branch = Repo(repo.private, repo.gated, dict(repo.files))
            repo.branches[f"refs/pr/{len(repo.branches) + 1}"] = repo = branch
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        added: dict[str, bytes] = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile" and value["oid"] in self.hub.lfs:
                added[value["path"]] = self.hub.lfs[value["oid"]]
            else:
                raise _HubError(400, f"Can't commit {operation['key']} {value['path']}")
        repo.files |= added
        self.hub.commits.append(Commit(repo_id, header["value"]["summary"], sorted(added)))
        url = f"{self.hub.endpoint}/{repo_id}/commit/{repo.sha}"
        opened = {"pullRequestUrl": f"{self.hub.endpoint}/{repo_id}/discussions/1"} if pull_request else {}
        self._reply({"success": True, "commitOid": repo.sha, "commitUrl": url, "hookOutput": "", **opened})


_ID = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET", rf"/api/(?:models|datasets)/{_ID}(?:/revision/([^/]+))?", _Handler.info),
    ("GET", rf"/api/models/{_ID}/refs", _Handler.refs),
    ("POST", rf"/api/models/{_ID}/branch/([^/]+)", _Handler.branch),
    ("POST", rf"/api/models/{_ID}/tag/([^/]+)", _Handler.tag),
    ("GET", rf"/api/(?:models|datasets)/{_ID}/tree/([^/]+)(?:/(.+))?", _Handler.tree),
    ("POST", rf"/api/(?:models|datasets)/{_ID}/paths-info/([^/]+)", _Handler.paths_info),
    ("GET", rf"(?:/datasets)?/{_ID}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("POST", rf"/api/models/{_ID}/preupload/([^/]+)", _Handler.preupload),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler.lfs_put),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/verify", _Handler.lfs_verify),
    ("POST", rf"/api/models/{_ID}/commit/([^/]+)", _Handler.commit),
]
