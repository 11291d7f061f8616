"""Downloading an artefact from the Hub: what its manifest lists, checked, whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from glob import escape
from os import PathLike
from pathlib import Path

from huggingface_hub import snapshot_download

from edgemin_hf.runtime.artefact import CARD, FORMAT, MANIFEST, check_inside, read_object
from edgemin_hf.utils.atomic_files import atomic_folder, check_writable_folder
from edgemin_hf.utils.content import digest_of
from edgemin_hf.utils.network import DOWNLOAD_ERRORS, told_by

_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)|<img\b[^>]*?\bsrc=[\"']([^\"']+)")


def pull(repo_id: str, folder: str | PathLike[str] | None = None, revision: str | None = None) -> Path:
    """Download an artefact from the Hub into a folder, which appears whole or not at all.

    What its manifest lists is downloaded and compared with the manifest's hashes, and the card with the pictures that
    it shows as they are. A download that was killed goes on from the cache of the Hub.

    Args:
        repo_id: Its repository, such as "me/banking-edge".
        folder: The folder to make; None takes one here by the repository's name.
        revision: Branch, tag or commit; None takes the main branch.

    Returns:
        The folder.

    Raises:
        ValueError: If there is no such artefact, a file is not what the manifest tells, or the folder holds something
            already; one line.

    Example:
        >>> from edgemin_hf.runtime import pull
        >>> pull("no such id")
        Traceback (most recent call last):
        ...
        ValueError: no such id: not downloaded from the Hub (HFValidationError: ...)
    """
    target = Path(repo_id.split("/")[-1] if folder is None else folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"FOLDER: {target}, which holds something already; allowed: a new folder, or an empty one")
    check_writable_folder(target)
    try:
        found = Path(snapshot_download(repo_id, revision=revision, allow_patterns=[MANIFEST, CARD]))
        listed = _listed(found, repo_id)
        names = [name for files, _ in listed for name in files]
        card = (found / CARD).read_text(encoding="utf-8") if (found / CARD).is_file() else ""
        shown = [name for name in (CARD, *pictures_of(card)) if name not in names]
        # The folder's name is the commit: a push between the two calls changes nothing.
        snapshot_download(repo_id, revision=found.name, allow_patterns=[escape(name) for name in (*names, *shown)])
    except DOWNLOAD_ERRORS as error:
        raise ValueError(f"{repo_id}: not downloaded from the Hub ({told_by(error)})") from None
    _check_files(found, listed, repo_id)
    with atomic_folder(target.absolute()) as partial:
        for name in (MANIFEST, *names, *(name for name in shown if (found / name).is_file())):
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found / name, partial / name)
    return target


def pictures_of(card: str) -> list[str]:
    """Return the files of its own folder that a card shows as pictures, each once, in its order."""
    shown = dict.fromkeys(markdown or html for markdown, html in _PICTURE.findall(card))
    return [name for name in shown if re.match(r"(?!\w+:|[/#.])[^\\]+$", name) and ".." not in name.split("/")]


def _listed(folder: Path, repo_id: str) -> list[tuple[list[str], str]]:
    """Return what a manifest lists: files that are hashed one after the other, and the SHA-256."""
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{repo_id}: holds no {MANIFEST}; expected: what `edgemin push` pushed")
    manifest = read_object(folder, MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{repo_id}: format: {manifest.get('format')} of {MANIFEST}; allowed: {FORMAT}")
    try:
        listed = [([e["file"], *e.get("external_data", ())], str(e["sha256"])) for e in manifest["entries"]]
        listed += [([name], str(sha256)) for name, sha256 in manifest["further_files"].items()]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{repo_id}: {error} is missing in {MANIFEST}; expected: what `edgemin push` pushed") from None
    for files, _ in listed:
        for file in files:
            check_inside(file)
    return listed


def _check_files(folder: Path, listed: Sequence[tuple[Sequence[str], str]], repo_id: str) -> None:
    """Check that all files are there, and have the bytes that the manifest tells.

    Raises:
        ValueError: If not.
    """
    for files, sha256 in listed:
        missing = next((name for name in files if not (folder / name).is_file()), None)
        if missing is not None:
            raise ValueError(
                f"{repo_id}: lacks {missing}, which {MANIFEST} lists; expected: what `edgemin push` pushed, "
                "in the cache too if the Hub can't be reached"
            )
        if digest_of([folder / name for name in files]) != sha256:
            raise ValueError(f"{repo_id}: {files[0]} has other bytes than {MANIFEST} tells; expected: the file as made")
