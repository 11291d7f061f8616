"""The server of the demo: a list of addresses and the file behind each, on 127.0.0.1, and nothing else."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgemin_hf.demo.modules import fetch_modules
from edgemin_hf.runtime.artefact import SMALL_FILES, read_artefact

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("page")
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
HEADERS = {
    # Both together isolate the page, which browsers want before they give threads memory that they share.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing is loaded from anywhere else, whatever a script asks for. The import map stands in the page itself.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    "worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # an artefact may be made anew under the same name
}


class _Server(ThreadingHTTPServer):
    """A server that knows its addresses."""

    daemon_threads = True

    def __init__(self, port: int, routes: dict[str, Path]) -> None:
        self.routes = routes
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went before it had all, as when a page is left; show what else is wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Answers with the file behind an address."""

    server: _Server
    server_version, sys_version = "edgemin", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the file."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with what would come before it."""
        self._answer()

    def _answer(self) -> None:
        # Pages of elsewhere whose name is made to lead here (DNS rebinding) have their own name in this.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        file = self.server.routes.get(self.path.partition("?")[0])
        try:
            content = None if file is None else file.read_bytes()
        except OSError:  # it was taken away since
            content = None
        if file is None or content is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES.get(file.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: the terminal has the address alone."""


def make_server(folder: Path, port: int, modules: Path) -> ThreadingHTTPServer:
    """Make the server of an artefact, listening and not yet answering.

    Args:
        folder: The artefact's folder.
        port: The port, of 127.0.0.1; 0 takes a free one.
        modules: The folder that `fetch_modules` returned.

    Returns:
        The server. `/` is the page, `/modules/` has the modules, and `/artefact/` the graphs for ONNX Runtime that the
        manifest lists, with manifest, configuration and tokenizer; there is nothing else.

    Raises:
        ValueError: If the folder is no artefact, has no graph for ONNX Runtime that reads any text, or the port can't
            be had; one line.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.demo import make_server
        >>> make_server(Path("nowhere"), 0, Path("modules"))
        Traceback (most recent call last):
        ...
        ValueError: nowhere: holds no edgemin.json; expected: a folder that `edgemin run` or `export_onnx` made
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port: {port}; allowed: 0 to 65535")
    routes = _routes(folder, modules)
    try:
        return _Server(port, routes)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be had ({error.strerror})"
        raise ValueError(f"port: {port} {why}; allowed: another one, or 0 for any that is free") from None


def _routes(folder: Path, modules: Path) -> dict[str, Path]:
    artefact = read_artefact(folder)
    listed = [file for graph in artefact.graphs if graph.shape is None for file in graph.files]
    missing = next((folder / file for file in listed if not (folder / file).is_file()), None)
    if missing is not None:
        raise ValueError(f"{missing}: is missing; expected: a file, which the manifest lists")
    if not listed:
        raise ValueError(f"{folder}: no graph for ONNX Runtime that reads any text; expected: one in the manifest")
    small = [name for name in SMALL_FILES if (folder / name).is_file()]
    return (
        {"/": PAGE / "index.html"}
        | {f"/{file.name}": file for file in PAGE.iterdir()}
        | {f"/modules/{file.name}": file for file in modules.iterdir()}
        | {f"/artefact/{name}": folder / name for name in [*small, *listed]}
    )


def serve(folder: Path, port: int, tell: Callable[[str], None] = print) -> None:
    """Serve the demo of an artefact until Ctrl-C.

    Args:
        folder: The artefact's folder.
        port: The port, of 127.0.0.1; 0 takes a free one.
        tell: Is told in a line where the page is, and what is fetched.

    Raises:
        ValueError: As `make_server`.
        OSError: As `fetch_modules`.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.demo import serve
        >>> serve(Path("runs/quickstart/artefact"), 8000)  # doctest: +SKIP
        http://127.0.0.1:8000 - Ctrl-C ends it
    """
    read_artefact(folder)  # a wrong folder is told before anything is fetched
    with make_server(folder, port, fetch_modules(tell)) as server:
        try:
            tell(f"http://{HOST}:{server.server_port} - Ctrl-C ends it")
            server.serve_forever()
        except KeyboardInterrupt:
            tell("")
