"""How commands tell: text for people or JSON lines for machines, and bars that neither flash by nor fill a file."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TextIO

_BARS = {"TQDM_DELAY": "2", "TQDM_LEAVE": ""}
"""How tqdm, which reads it when it is imported, shows all bars: after two seconds, and not when they are done."""
_NO_BARS = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""How tqdm shows none; the Hub's library asks for a word of its own."""


class JsonLines(logging.Formatter):
    """Write a record as a JSON object: what happened where it tells that (`extra={"event": {...}}`), else its message.

    Example:
        >>> import logging
        >>> from edgemin_hf.utils.terminal import JsonLines
        >>> record = logging.makeLogRecord({"msg": "%d rows", "args": (3,), "levelname": "INFO", "created": 0})
        >>> JsonLines().format(record)
        '{"time": "1970-01-01T00:00:00+00:00", "level": "info", "event": "message", "message": "3 rows"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = getattr(record, "event", None) or {"event": "message", "message": record.getMessage().strip()}
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="seconds")
        return json.dumps({"time": time, "level": record.levelname.lower(), **event}, ensure_ascii=False)


class _Stream(logging.StreamHandler[TextIO]):
    """Write what is told to what is the standard output, or error, at that time; bars make room for it."""

    def __init__(self, name: str) -> None:
        super().__init__(getattr(sys, name))
        self.stream_name = name

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = getattr(sys, self.stream_name)
        with _without_bars(self.stream):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name that logging calls
        """Let the command go on, and tell nobody any more, where whoever read it is gone, such as `head`."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        else:
            super().handleError(record)


def log_to_terminal(loggers: Sequence[str], json_lines: bool = False) -> None:
    """Have what is logged stand on the terminal: warnings of everybody on stderr, and all of some loggers on stdout.

    Args:
        loggers: Names of those loggers.
        json_lines: Whether all of it is JSON lines, without bars, and what is logged for machines alone among it; so
            are the warnings of Python then.
    """
    os.environ.update({name: value for name, value in _BARS.items() if name not in os.environ})
    # Of several processes the first one's bars are enough.
    if json_lines or not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        os.environ |= _NO_BARS
    warnings = _Stream("stderr")
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(JsonLines() if json_lines else logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    _without_streams(logging.getLogger())
    logging.basicConfig(handlers=[warnings])
    if json_lines:
        logging.captureWarnings(True)
    for name in loggers:
        logger, told = logging.getLogger(name), _Stream("stdout")
        logger.setLevel(logging.DEBUG if json_lines else logging.INFO)
        told.addFilter(lambda record: record.levelno < logging.WARNING)
        told.setFormatter(JsonLines() if json_lines else None)
        _without_streams(logger)
        logger.addHandler(told)


def _without_streams(logger: logging.Logger) -> None:
    """Take away what a command before this one, in the same process, wrote by."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Stream)]:
        logger.removeHandler(handler)


def _without_bars(stream: TextIO) -> AbstractContextManager[object]:
    """Return a context in which no bar stands in the way of a line."""
    if "tqdm" not in sys.modules:
        return nullcontext()
    from tqdm import tqdm

    context: AbstractContextManager[object] = tqdm.external_write_mode(file=stream)
    return context
