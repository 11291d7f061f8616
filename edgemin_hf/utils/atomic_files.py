"""Atomic folders and files: they appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST_NAME = 255
"""Bytes of a file's name that the file systems in use take."""


def check_writable_folder(path: Path) -> None:
    """Check that a folder can be made or written to; make and write nothing.

    Raises:
        ValueError: If not; the message names value and what is allowed.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.utils import check_writable_folder
        >>> check_writable_folder(Path("runs/demo"))  # it may be made here
        >>> check_writable_folder(Path("/dev/null/runs"))
        Traceback (most recent call last):
        ...
        ValueError: /dev/null/runs, which can't be made in /dev/null, a file; allowed: a folder, or a name for one
    """
    place = path.absolute()
    if path.parts and path.parts[0].startswith("~"):
        raise ValueError(f"{path}, where ~ is a character like any other; expected: the folder's complete name")
    if "\0" in str(path) or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise ValueError(f"{str(path)[:80]!r}, which is no name; allowed: at most {_LONGEST_NAME} bytes, without NUL")
    above = next(folder for folder in (place, *place.parents) if os.path.lexists(folder))
    if not above.is_dir():
        found = "which is a file" if above == place else f"which can't be made in {above}, a file"
        raise ValueError(f"{path}, {found}; allowed: a folder, or a name for one")
    if not os.access(above, os.W_OK | os.X_OK):
        found = (
            "which can't be written to" if above == place else f"which can't be made in {above}, without rights there"
        )
        raise ValueError(f"{path}, {found}; allowed: a folder that you may write to")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that takes its place at `path` when the block ends well.

    A folder that stands at `path` is replaced then, not before; after an error it is as it was.

    Args:
        path: Where the folder is to stand.

    Yields:
        The folder to fill.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.utils import atomic_folder
        >>> with TemporaryDirectory() as above:
        ...     with atomic_folder(Path(above, "result")) as folder:
        ...         written = (folder / "notes.txt").write_text("done")
        ...         appeared = Path(above, "result").exists()
        ...     appeared, Path(above, "result", "notes.txt").read_text()
        (False, 'done')
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    old = path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)  # an earlier replacement was killed between its two renames
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial)
        raise
    if path.exists():
        path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file under another name and rename it when it is on disk.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.utils import write_atomic
        >>> with TemporaryDirectory() as folder:
        ...     write_atomic(Path(folder, "notes.txt"), "done")
        ...     [file.name for file in Path(folder).iterdir()]
        ['notes.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
