"""Files by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; a process reads a file that stays as it is once.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.utils.content import sha256_of
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("my card")
        ...     sha256_of(Path(folder, "a.txt"))[:8]
        '170923c4'
    """
    status = path.stat()
    return _sha256(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Return one SHA-256 of several files: of their names, without folders, and their contents."""
    found = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        found.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return found.hexdigest()


def digest_of(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of files one after the other, as they are at this moment."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()
