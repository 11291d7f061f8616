"""transformers.js and the ONNX Runtime that it calls, from the npm registry: fetched once, checked, kept in a cache.

By itself transformers.js loads a WebAssembly that is built for WebGPU, of twice the size and without an operator that
fused graphs have. The plain one of the same version is taken instead (docs/browser.md).
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

from edgemin_hf.utils.atomic_files import atomic_folder

REGISTRY = "https://registry.npmjs.org"
"""Where packages come from, unless `npm_config_registry` in the environment says otherwise, as npm has it."""
_WAIT = 60
"""Seconds without a byte after which the registry is given up."""


class Package(NamedTuple):
    """A package of the npm registry: its version, the SHA-512 of its tarball as npm writes it, and what is taken."""

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]


PACKAGES = (
    Package(
        "@huggingface/transformers",
        "4.3.2",
        "sha512-V3+dqf3iWlRYJ9I9GreM3zGQd0lAXnnoPeddmkOQYWAEE4l/+Fi6p7tx/qVUJlKQgLXGim2W76rTOzz+eC0i7g==",
        ("dist/transformers.web.min.js",),
    ),
    Package(
        "onnxruntime-web",
        "1.31.0-dev.20260914-8d85527a0",  # the one that this transformers.js asks for
        "sha512-Iy7rtadoBgxS/LLvDr3QW38DB1PNXRnr0GJMcL0TAt7c9qjgVQl83UlGCVyeAnK2InpmW8Uc3PL8XIuqtDeF6g==",
        ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    ),
)


def fetch_modules(tell: Callable[[str], None] = print) -> Path:
    """Return the folder of the modules; fetch them where that was not done yet.

    Args:
        tell: Is told in a line what is fetched, before it is.

    Returns:
        The folder, in `$XDG_CACHE_HOME/edgemin` or `~/.cache/edgemin`.

    Raises:
        OSError: If the registry does not answer, or with other bytes than were pinned; one line.

    Example:
        >>> from edgemin_hf.demo import fetch_modules
        >>> names = ["ort-wasm-simd-threaded.wasm", "transformers.web.min.js"]
        >>> folder = fetch_modules()  # doctest: +SKIP
        >>> [(folder / name).is_file() for name in names]  # doctest: +SKIP
        [True, True]
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemin"
    folder = cache / "-".join(["demo", *(package.version for package in PACKAGES)])
    if not folder.is_dir():
        registry = _registry()
        tell(f"fetching transformers.js {PACKAGES[0].version} from {urlsplit(registry).hostname} into {folder}, once")
        with atomic_folder(folder) as partial:
            for package in PACKAGES:
                _fetch(package, registry, partial)
    return folder


def _registry() -> str:
    told = os.environ.get("npm_config_registry") or REGISTRY  # noqa: SIM112 - npm writes it so
    address = urlsplit(told)
    if address.scheme not in ("https", "http") or "@" in address.netloc:  # of which an error would tell the password
        allowed = "one that begins with https:// or http://, without a user or password"
        raise ValueError(f"npm_config_registry: no address that can be asked; allowed: {allowed}")
    return told.rstrip("/")


def _fetch(package: Package, registry: str, folder: Path) -> None:
    """Write what is taken of a package into a folder, once all of the package is known to be the one pinned."""
    host = urlsplit(registry).hostname
    address = f"{registry}/{package.name}/-/{package.name.rpartition('/')[2]}-{package.version}.tgz"
    with tempfile.TemporaryFile() as tarball:
        try:
            with urlopen(address, timeout=_WAIT) as answer:  # noqa: S310 - the scheme is checked
                shutil.copyfileobj(answer, tarball)
        except (OSError, HTTPException) as error:
            expected = "a network this once, or in npm_config_registry a registry that answers"
            raise OSError(f"{package.name} {package.version}: {host} says: {error}; expected: {expected}") from None
        tarball.seek(0)
        found = base64.b64encode(hashlib.file_digest(tarball, "sha512").digest()).decode()
        if f"sha512-{found}" != package.integrity:
            raise OSError(f"{package.name} {package.version}: {host} gave other bytes than were pinned; none is kept")
        tarball.seek(0)
        _unpack(tarball, package.files, folder)


def _unpack(tarball: IO[bytes], files: tuple[str, ...], folder: Path) -> None:
    """Write files of a tarball into a folder, each under its own name: no path of the tarball is followed."""
    with tarfile.open(fileobj=tarball, mode="r:gz") as members:
        for file in files:
            content = members.extractfile(f"package/{file}")
            if content is None:
                raise OSError(f"{file}: no file in the package; expected: one")
            with content, (folder / file.rpartition("/")[2]).open("wb") as written:
                shutil.copyfileobj(content, written)
