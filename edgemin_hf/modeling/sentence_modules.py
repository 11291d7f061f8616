"""How sentence-transformers makes one embedding of a model's tokens: files beside its weights, as its teacher has them.

Without them it takes the tokens' mean and does not normalise it, whatever the teacher does. A student's configuration
keeps them, so that they pass through every training, and they are written wherever a model without a head is.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TypeGuard, cast

from transformers import PreTrainedModel
from transformers.utils import cached_file

from edgemin_hf.modeling.pooling import Pooling
from edgemin_hf.utils.weight_files import SENTENCE_FILE

logger = logging.getLogger(__name__)

SENTENCE_FILES = "edgemin_sentence_modules"
"""The configuration's field: the content of each file, by its name."""
MODULES = "modules.json"
_CONFIGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
"""Families after which sentence-transformers has named the file of its first module; it writes "bert" for all today."""
_WEIGHTLESS = ("Transformer", "Pooling", "Normalize")
_WIDTHS = ("word_embedding_dimension", "embedding_dimension")

Files = dict[str, object]
"""What JSON files hold, by their names in the model's folder."""


def keep_sentence_modules(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Make a student without a head be read as its teacher is."""
    if (files := _files_of(teacher)) is not None:
        setattr(student.config, SENTENCE_FILES, files)


def write_sentence_modules(model: PreTrainedModel, folder: Path) -> bool:
    """Write the files beside a model that has no head.

    Args:
        model: The model.
        folder: Folder of its weights.

    Returns:
        Whether a reader gets the embedding that the model was trained for, so far as one is known: also where the
        model has a head, and so gives none.
    """
    if model is not model.base_model:
        return True
    files = _files_of(model)
    for name, content in known_files(files or {}).items():
        if is_object(content):
            # The student may be narrower than the teacher.
            content = content | {key: model.config.hidden_size for key in _WIDTHS if key in content}
        write_json(folder / name, content)
    return files is not None


def known_files(files: Files) -> Files:
    """Return those files whose names are sentence-transformers' own: a stranger's configuration may name any."""
    return {name: content for name, content in files.items() if SENTENCE_FILE.fullmatch(name)}


def write_json(file: Path, content: object) -> None:
    """Write one of the files."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sentence_pooling(source: str) -> Pooling | None:
    """Return by which pooling sentence-transformers reads an encoder; None without modules, or by another one.

    Args:
        source: Folder or Hub id.
    """
    modules = read_json(source, MODULES)
    pools = [m for m in modules if m["type"].endswith(".Pooling")] if isinstance(modules, list) else []
    config = read_json(source, f"{pools[0]['path']}/config.json") if len(pools) == 1 else None
    if not is_object(config):
        return None
    named: dict[str, Pooling] = {"mean": "mean", "cls": "cls"}
    return named.get(pooling_mode(config))


def pooling_mode(config: Files) -> str:
    """Return the mode of a Pooling module's configuration, by its name of today; several in one as "a+b"."""
    modes = config.get("pooling_mode", [])
    modes = [modes] if isinstance(modes, str) else modes
    old = [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True and "pooling_mode_" in key]
    renamed = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    names = (renamed.get(str(mode), str(mode)) for mode in [*cast(list[str], modes), *old])
    return "+".join(dict.fromkeys(names))


def _files_of(model: PreTrainedModel) -> Files | None:
    """Return the files of a model: as its configuration keeps them, or as they lie where it came from."""
    if model is not model.base_model:
        return None
    kept: Files | None = getattr(model.config, SENTENCE_FILES, None)
    kept = kept if kept is not None and MODULES in kept else None  # a sentence encoder's hold no modules
    return kept if kept is not None or not model.config.name_or_path else _read(model.config.name_or_path)


def _read(source: str) -> Files | None:
    modules = read_json(source, MODULES)
    if not isinstance(modules, list):
        return None
    for module in modules:
        package, _, kind = module["type"].rpartition(".")
        # The path becomes that of a file here: a name, and nothing that leads elsewhere.
        if not package.startswith("sentence_transformers.") or kind not in _WEIGHTLESS or "/" in module["path"]:
            logger.warning(
                "module %s, by which sentence-transformers reads the teacher, is not carried over; allowed: %s",
                module["type"],
                ", ".join(_WEIGHTLESS),
            )
            return None
    # The weights lie in the folder itself, whatever the teacher calls the place of its own.
    files: Files = {MODULES: [m | {"path": ""} if m["type"].endswith(".Transformer") else m for m in modules]}
    pools = [f"{module['path']}/config.json" for module in modules if module["type"].endswith(".Pooling")]
    files |= {name: read_json(source, name) for name in pools}
    return {name: content for name, content in files.items() if content is not None} | usage_files(source)


def usage_files(source: str) -> Files:
    """Return what tells how texts are given to an encoder: the longest of them, and prompts."""
    first = (read_json(source, f"sentence_{family}_config.json") for family in _CONFIGS)
    files: Files = {
        "sentence_bert_config.json": next((content for content in first if content is not None), None),
        "config_sentence_transformers.json": read_json(source, "config_sentence_transformers.json"),
    }
    return {name: content for name, content in files.items() if content is not None}


def read_json(source: str, name: str) -> object:
    """Read a file of a folder, or of a model of the Hub; None where there is none."""
    file = find_file(source, name)
    content: object = None if file is None else json.loads(file.read_text(encoding="utf-8"))
    return content


def find_file(source: str, name: str) -> Path | None:
    """Return where a file of a folder, or of a model of the Hub, lies; None where there is none."""
    file: Path | str | None = Path(source) / name
    if not Path(source).is_dir():
        # A model that was loaded from a folder which is gone names it still: no id of the Hub, and no error here.
        quiet = ("gated_repo", "missing_entries", "connection_errors")
        try:
            file = cached_file(source, name, **{f"_raise_exceptions_for_{kind}": False for kind in quiet})
        except (OSError, ValueError):
            return None
    return None if file is None or not Path(file).is_file() else Path(file)


def is_object(content: object) -> TypeGuard[Files]:
    """Tell what an object of JSON is from all else."""
    return isinstance(content, dict)
