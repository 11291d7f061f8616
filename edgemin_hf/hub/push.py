"""Push a finished artefact to the Hub as one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from edgemin_hf.export.manifest import read_manifest
from edgemin_hf.hub.network import NETWORK_ERROR, XET_ERROR
from edgemin_hf.hub.privacy import check_publishable, unsigned_log, without_secrets
from edgemin_hf.runtime.artefact import MANIFEST

REQUIRED_FILES = ("README.md", "config.json", MANIFEST)
"""What an artefact holds beside the files that its manifest lists."""


class PushError(RuntimeError):
    """The Hub didn't take the artefact; the message is one line that says why, never with the token in it."""


def push_artefact(folder: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Create the model repository if it doesn't exist yet, and push all of the folder to it as one commit.

    The token is the one `huggingface_hub` finds (`HF_TOKEN`, or `hf auth login`); it needs write access.

    Args:
        folder: Artefact that `edgemin run` wrote; it must hold `REQUIRED_FILES` and all that its manifest lists.
        repo_id: `org/name` or `user/name`, or `name` alone for the token's own user.
        private: Whether only its owners may see the repository. An existing repository keeps its visibility.

    Returns:
        URL of the commit; the latest one if the repository already holds exactly these files.

    Raises:
        PushError: If the Hub can't be reached or refuses, or if `private` is wanted of a public repository. It says
            where a repository was created and is left without the files; none is ever deleted.
        ValueError: If the folder lacks a file, one is not as the manifest tells or holds something private (a token,
            the user's folder, what a training leaves), or `repo_id` is malformed; nothing has been sent then.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.export import Manifest
        >>> from edgemin_hf.hub import push_artefact
        >>> with TemporaryDirectory() as folder:  # what lacks a file is not sent
        ...     Manifest(1, "text_classification", "text-classification", (), ()).write(Path(folder))
        ...     push_artefact(folder, "me/banking-edge")
        Traceback (most recent call last):
        ValueError: '...' is no artefact: it lacks ...
    """
    manifest = read_manifest(Path(folder))
    missing = [name for name in (*REQUIRED_FILES, *manifest.files) if not Path(folder, name).is_file()]
    if missing:
        raise ValueError(f"{str(folder)!r} is no artefact: it lacks {', '.join(missing)}")
    manifest.verify_files(Path(folder))
    check_publishable(Path(folder))
    validate_repo_id(repo_id)
    api = HfApi()
    with unsigned_log():
        with _one_line_errors(repo_id):
            full_id, created = _repository(api, repo_id, private)
        with _one_line_errors(full_id, created):
            # The Hub doesn't change an existing repository's visibility: what was meant private would be published.
            exposed = private and not api.model_info(full_id).private
        if exposed:
            raise PushError(
                f"{full_id!r} exists and is public: make it private in its settings, or choose another name"
            )
        with _one_line_errors(full_id, created):
            commit = api.upload_folder(
                repo_id=full_id, folder_path=folder, commit_message="Add the artefact of an edgemin run"
            )
    return commit.commit_url


def _repository(api: HfApi, repo_id: str, private: bool) -> tuple[str, bool]:
    """Return the repository's complete id, and whether it was created now."""
    try:
        return api.create_repo(repo_id, private=private, exist_ok=False).repo_id, True
    except HfHubHTTPError as error:
        # Who may write into a repository need not be allowed to create one beside it: the Hub's client knows.
        known = (HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN)
        if error.response is None or error.response.status_code not in known:
            raise
    return api.create_repo(repo_id, private=private, exist_ok=True).repo_id, False


@contextmanager
def _one_line_errors(repo_id: str, created: bool = False) -> Iterator[None]:
    try:
        yield
    # Beside its own errors huggingface_hub raises RuntimeError for an upload that broke off, ValueError for metadata
    # in README.md that the Hub rejects, and the built-in connection errors in offline mode and from Xet storage.
    except (NETWORK_ERROR, XET_ERROR, ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        # From None, since the traceback would show signed addresses.
        left = "; the repository was created and may be empty: push again, or delete it in its settings"
        raise PushError(f"{repo_id!r} was not pushed: {_reason(error)}{left if created else ''}") from None


def _reason(error: BaseException) -> str:
    root = error
    # An upload that broke off says why only in its cause.
    while isinstance(root, (RuntimeError, XET_ERROR)) and root.__cause__ is not None:
        root = root.__cause__
    response = getattr(root, "response", None)
    if response is not None:  # also of an upload's storage, which is not the Hub
        status = response.status_code
        text = f"HTTP {status}, {getattr(root, 'server_message', None) or HTTPStatus(status).phrase}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            text += "; log in with a token that may write there: `hf auth login`"
    elif isinstance(root, (NETWORK_ERROR, ConnectionError, TimeoutError)):
        # Its text holds the whole URL, and an upload's URL is signed.
        return f"the Hub can't be reached ({type(root).__name__})"
    else:
        text = str(root)
    return " ".join(without_secrets(text).split())
