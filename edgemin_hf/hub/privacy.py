"""What must not leave this machine, nor stand on its terminal: signed addresses, tokens, and where things lie here."""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import get_token

from edgemin_hf.utils.network import without_queries

_LOGGERS = ("huggingface_hub", "urllib3", "httpx")
"""Whose warnings of a retry hold the address that is tried again: of an upload, or of a file behind a redirection, it
is signed, and whoever has it may write or read."""
_TOKEN = re.compile(rb"\b(hf|api_org)_[A-Za-z0-9]{34}\b")
_LEAST_HOME = 5


@contextmanager
def unsigned_log() -> Iterator[None]:
    """Take what stands after "?" in addresses, and the token, out of what libraries log about requests meanwhile."""
    before = logging.getLogRecordFactory()

    def unsigned(*args: object, **kwargs: object) -> logging.LogRecord:
        record = before(*args, **kwargs)
        if record.name.startswith(_LOGGERS):
            record.msg, record.args = without_secrets(record.getMessage()), ()
        return record

    # Not by filters: loggers that are made meanwhile would have none, and one inside another would take off both.
    logging.setLogRecordFactory(unsigned)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def without_secrets(text: str) -> str:
    """Return a text without the token, and without the queries of addresses, which may be signatures."""
    token = get_token()
    return without_queries(text.replace(token, "***") if token else text)


def check_publishable(folder: Path, names: Iterable[str]) -> None:
    """Check that files tell nothing of this machine: the user's folder, a token.

    Args:
        folder: The folder that they are in.
        names: The files, relative to it.

    Raises:
        ValueError: If one does; it is named, and what it holds.
    """
    home, token = str(Path.home()), get_token()
    private = {f"{home}/": "the user's folder"} if len(home) >= _LEAST_HOME else {}
    if token:
        private[token] = "a token of the Hub"
    for name in names:
        if (folder / name).stat().st_size == 0:
            continue
        with (folder / name).open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = [what for text, what in private.items() if content.find(text.encode()) >= 0]
            found += ["a token of the Hub"] if _TOKEN.search(content) else []
        if found:
            raise ValueError(f"{name}: holds {found[0]}; expected: nothing private, since it is to be published")


def publishable(settings: Mapping[str, object], root: Path) -> dict[str, object]:
    """Return a recipe's settings without where things lie on this machine.

    A path inside the recipe's folder becomes relative to it; of any other that is absolute, begins at the user's folder
    or leads out of the recipe's, the name is left.

    Args:
        settings: Plain settings.
        root: The recipe's folder.
    """
    return {name: _publishable(value, root) for name, value in settings.items()}


def _publishable(value: object, root: Path) -> object:
    if isinstance(value, Mapping):
        return publishable(value, root)
    if isinstance(value, list | tuple):
        return [_publishable(one, root) for one in value]
    if not isinstance(value, str) or "\n" in value or not re.match(r"/|~|\.\.(/|$)|[A-Za-z]:[\\/]", value):
        return value
    path = Path(value)
    if path.is_absolute() and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
