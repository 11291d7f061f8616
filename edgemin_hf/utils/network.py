"""What `huggingface_hub` raises where the Hub can't be reached: by requests in 0.x, by httpx in 1.x, httpx2 in 2.x."""

from __future__ import annotations

import re

from huggingface_hub import errors

_BASES = {base.__name__: base for base in errors.HfHubHTTPError.__mro__}

NETWORK_ERROR: type[Exception] = _BASES.get("RequestException", _BASES["HTTPError"])
"""The base of all errors of the HTTP library that is used."""

XET_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(errors, name) for name in ("XetError", "XetDownloadError") if hasattr(errors, name)
)
"""The errors of Xet storage."""

DOWNLOAD_ERRORS: tuple[type[Exception], ...] = (NETWORK_ERROR, *XET_ERRORS, errors.HFValidationError, OSError)
"""All that a download may raise: `OSError` is what requests' own errors are, httpx' are none."""

_QUERY = re.compile(r"\?[^\s'\"]+")


def without_queries(text: str) -> str:
    """Return a text without the queries of addresses, which may be signatures: whoever has one may read, or write.

    Example:
        >>> from edgemin_hf.utils.network import without_queries
        >>> without_queries("403 for https://cdn/x?Signature=secret")
        '403 for https://cdn/x?...'
    """
    return _QUERY.sub("?...", text)


def told_by(error: Exception) -> str:
    r"""Return in a line what a download's error is and says, without signatures.

    Example:
        >>> from edgemin_hf.utils.network import told_by
        >>> told_by(OSError("no space left\non the device"))
        'OSError: no space left on the device'
    """
    return f"{type(error).__name__}: {' '.join(without_queries(str(error)).split())[:200]}"
