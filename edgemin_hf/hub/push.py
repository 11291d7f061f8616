"""Push a finished artefact to the Hub as one commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.client import responses
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id

from edgemin_hf.hub.card import check_card, check_card_online, naming
from edgemin_hf.hub.files import Published, published_files
from edgemin_hf.hub.privacy import check_publishable, unsigned_log, without_secrets
from edgemin_hf.runtime.artefact import CARD
from edgemin_hf.utils.network import NETWORK_ERROR, XET_ERRORS

MESSAGE = "Add the artefact of an edgemin run"
_NAME = re.compile(r"\w[\w./-]*")
"""Of a branch or tag."""
_BUILT_IN = (ConnectionError, TimeoutError, RuntimeError, ValueError)
_ERRORS: tuple[type[Exception], ...] = (NETWORK_ERROR, *XET_ERRORS, *_BUILT_IN)
"""What huggingface_hub raises: beside its own errors RuntimeError for an upload that broke off, ValueError for metadata
in README.md that the Hub rejects, and the built-in connection errors in offline mode and from Xet storage."""
_LEFT = "; the repository was created and may be empty: push again, or delete it in its settings"


class PushError(RuntimeError):
    """An artefact was not pushed, for its gate or the Hub; one line that says why, never with the token in it."""


def push_artefact(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tags: Sequence[str] = (),
    create_pr: bool = False,
    message: str = MESSAGE,
    force: bool = False,
) -> str:
    """Create the model repository if it doesn't exist yet, and push an artefact to it as one commit.

    Pushed is what `published_files` tells, and nothing beside it. The card that is pushed loads the model from this
    repository; the one in the folder stays as it is. What a push that was killed had uploaded is not uploaded again,
    and nobody sees it.

    The token is the one `huggingface_hub` finds (`HF_TOKEN`, or `hf auth login`); it needs write access.

    Args:
        folder: Artefact that `edgemin run` wrote.
        repo_id: `org/name` or `user/name`, or `name` alone for the token's own user.
        private: Whether only its owners may see the repository. An existing repository keeps its visibility.
        revision: The branch; it is made where it does not exist. None is the main branch.
        tags: Tags to give the commit.
        create_pr: Whether to open a pull request instead of changing the branch.
        message: The commit's message.
        force: Whether to push what misses a bound of its gate.

    Returns:
        URL of the commit, or of the pull request; the latest commit if the repository already holds exactly these
        files.

    Raises:
        PushError: If it misses a bound of its gate, the Hub can't be reached or refuses, `private` is wanted of a
            public repository, or a tag stands elsewhere. It says where a repository was created and is left without the
            files; none is ever deleted.
        ValueError: If the folder lacks a file, one is not as the manifest tells or holds something private (a token,
            the user's folder), the card's metadata is not the Hub's, or `repo_id` is malformed; nothing has been sent
            then.

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
    published = published_files(folder)
    card = check_push(published, repo_id, revision=revision, tags=tags, create_pr=create_pr, force=force)
    api = HfApi()
    with unsigned_log():
        with _one_line_errors(f"{repo_id!r} was not pushed"):
            check_card_online(api, card)
            full_id, created = _repository(api, repo_id, private)
        card = naming(card, full_id)
        files = [(name, card.encode() if name == CARD else published.folder / name) for name in published.names]
        with _one_line_errors(f"{full_id!r} was not pushed", _LEFT if created else ""):
            # The Hub doesn't change an existing repository's visibility: what was meant private would be published.
            if private and not api.model_info(full_id).private:
                raise PushError(
                    f"{full_id!r} exists and is public: make it private in its settings, or choose another name"
                )
            if revision is not None and not create_pr:
                api.create_branch(full_id, branch=revision, exist_ok=True)
            _check_tags(api, full_id, revision, tags)
            commit = api.create_commit(
                full_id,
                [CommitOperationAdd(name, content) for name, content in files],
                commit_message=message,
                revision=revision,
                create_pr=create_pr,
            )
        with _one_line_errors(f"{full_id!r} was pushed ({commit.commit_url}), but not tagged"):
            _tag(api, full_id, commit.oid, tags)
    return commit.pr_url or commit.commit_url


def check_push(
    published: Published, repo_id: str, *, revision: str | None, tags: Sequence[str], create_pr: bool, force: bool
) -> str:
    """Check all of a push that can be told without the Hub, and return the card that is to be pushed.

    Args:
        published: The files.
        repo_id: As of `push_artefact`; so is all else.
        revision: The branch.
        tags: The tags.
        create_pr: Whether a pull request is opened.
        force: Whether the gate counts for nothing.

    Raises:
        PushError: If the artefact misses a bound of its gate.
        ValueError: As `push_artefact`.
    """
    if tags and create_pr:
        raise ValueError(f"tags: {', '.join(tags)} beside create_pr; allowed: one of the two")
    check_names(revision, tags)
    validate_repo_id(repo_id)
    card = naming((published.folder / CARD).read_text(encoding="utf-8"), repo_id)
    check_card(card)
    check_publishable(published.folder, published.names)
    missed = [bound.missed for bound in published.manifest.gate if bound.missed is not None]
    if missed and not force:
        raise PushError(
            f"{repo_id!r} was not pushed: {'; '.join(missed)}; allowed: what passes, or `edgemin push --force`"
        )
    return card


def check_names(revision: str | None, tags: Sequence[str]) -> None:
    """Check the names of a branch and of tags.

    Raises:
        ValueError: If one is none; one line.
    """
    for name, given in {"revision": [revision], "tags": tags}.items():
        for odd in (one for one in given if one is not None and not _NAME.fullmatch(one)):
            raise ValueError(f"{name}: {odd!r}; allowed: letters, digits, ., _, - and /")


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


def _tagged(api: HfApi, repo_id: str, tags: Sequence[str]) -> Mapping[str, str]:
    """Return the commits of those of the tags that are there."""
    found = api.list_repo_refs(repo_id).tags if tags else []
    return {tag.name: tag.target_commit for tag in found if tag.name in tags}


def _check_tags(api: HfApi, repo_id: str, revision: str | None, tags: Sequence[str]) -> None:
    """Check that no tag stands elsewhere than at the newest commit, where an earlier push may have left it."""
    newest = api.model_info(repo_id, revision=revision).sha if tags else None
    for tag, commit in _tagged(api, repo_id, tags).items():
        if commit != newest:
            raise PushError(f"{repo_id!r} was not pushed: its tag {tag} stands at another commit; allowed: a new tag")


def _tag(api: HfApi, repo_id: str, commit: str, tags: Sequence[str]) -> None:
    there = _tagged(api, repo_id, tags)
    for tag in tags:
        if tag not in there:
            api.create_tag(repo_id, tag=tag, revision=commit)
        elif there[tag] != commit:
            raise PushError(
                f"{repo_id!r} was pushed, but its tag {tag} stands at the commit before; allowed: a new tag"
            )


@contextmanager
def _one_line_errors(outcome: str, left: str = "") -> Iterator[None]:
    """Make one line of what the Hub's client raises: what became of the push, why, and what it left."""
    try:
        yield
    except PushError:
        raise
    except _ERRORS as error:
        # From None, since the traceback would show signed addresses.
        raise PushError(f"{outcome}: {reason(error)}{left}") from None


def reason(error: BaseException) -> str:
    """Say why the Hub did not do what it was asked, in a line without a token or a signature."""
    root = error
    # An upload that broke off says why only in its cause.
    while isinstance(root, (RuntimeError, *XET_ERRORS)) and root.__cause__ is not None:
        root = root.__cause__
    response = getattr(root, "response", None)
    if response is not None:  # also of an upload's storage, which is not the Hub
        status = response.status_code
        # Proxies have status codes of their own, such as 520, which Python does not know.
        text = f"HTTP {status}, {getattr(root, 'server_message', None) or responses.get(status, 'without a reason')}"
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            text += "; log in with a token that may write there: `hf auth login`"
    elif isinstance(root, (NETWORK_ERROR, ConnectionError, TimeoutError)):
        # Its text holds the whole URL, and an upload's URL is signed.
        return f"the Hub can't be reached ({type(root).__name__})"
    else:
        text = str(root)
    return " ".join(without_secrets(text).split())
