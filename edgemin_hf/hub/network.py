"""What `huggingface_hub` raises where the Hub can't be reached: by requests in 0.x, by httpx in 1.x, httpx2 in 2.x."""

from __future__ import annotations

from huggingface_hub import errors

_BASES = {base.__name__: base for base in errors.HfHubHTTPError.__mro__}

NETWORK_ERROR: type[Exception] = _BASES.get("RequestException", _BASES["HTTPError"])
"""The base of all errors of the HTTP library that is used."""

XET_ERROR: type[Exception] = getattr(errors, "XetError", errors.XetDownloadError)
"""The base of the errors of Xet storage."""
