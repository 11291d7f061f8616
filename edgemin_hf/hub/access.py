"""Whether this machine may write to the Hub, asked before hours of work that end there."""

from __future__ import annotations

from http import HTTPStatus

from huggingface_hub import HfApi, constants, get_token

from edgemin_hf.hub.privacy import unsigned_log
from edgemin_hf.utils.network import NETWORK_ERROR

_LOG_IN = "allowed: after `hf auth login` or with HF_TOKEN, by a token that may write"


def check_access(repo_id: str) -> None:
    """Check that there is a token that the Hub knows; whether it may write to a repository only a push can tell.

    A Hub that can't be reached at this moment may be there when the work is done.

    Raises:
        ValueError: If not; one line.
    """
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"repo_id: {repo_id} beside HF_HUB_OFFLINE; allowed: one of the two")
    if get_token() is None:
        raise ValueError(f"repo_id: {repo_id} without a token of the Hub; {_LOG_IN}")
    try:
        with unsigned_log():
            HfApi().whoami()
    except (NETWORK_ERROR, ConnectionError) as error:  # whoami of 0.36 raises the HTTP library's own
        response = getattr(error, "response", None)
        if response is not None and response.status_code == HTTPStatus.UNAUTHORIZED:
            raise ValueError(f"repo_id: {repo_id} with a token that the Hub does not know; {_LOG_IN}") from None
