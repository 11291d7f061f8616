"""What the Hub takes as licence, language and dataset in a card's metadata; checked before a run, without network."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

LICENCES = (
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear",
    "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
    "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0",
    "cdla-sharing-1.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0",
    "eupl-1.1", "eupl-1.2", "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0",
    "grok2-community", "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2",
    "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl",
    "odc-by", "ofl-1.1", "openmdw-1.0", "openmdw-1.1", "openrail", "openrail++", "osl-3.0", "other", "pddl",
    "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
)  # fmt: skip
"""The licences that the Hub knows, of https://huggingface.co/docs/hub/repositories-licenses (August 2026)."""

_LANGUAGES = (
    "aa", "ab", "ae", "af", "ak", "am", "an", "ar", "as", "av", "ay", "az", "ba", "be", "bg", "bh", "bi", "bm", "bn",
    "bo", "br", "bs", "ca", "ce", "ch", "co", "cr", "cs", "cu", "cv", "cy", "da", "de", "dv", "dz", "ee", "el", "en",
    "eo", "es", "et", "eu", "fa", "ff", "fi", "fj", "fo", "fr", "fy", "ga", "gd", "gl", "gn", "gu", "gv", "ha", "he",
    "hi", "ho", "hr", "ht", "hu", "hy", "hz", "ia", "id", "ie", "ig", "ii", "ik", "io", "is", "it", "iu", "ja", "jv",
    "ka", "kg", "ki", "kj", "kk", "kl", "km", "kn", "ko", "kr", "ks", "ku", "kv", "kw", "ky", "la", "lb", "lg", "li",
    "ln", "lo", "lt", "lu", "lv", "mg", "mh", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "na", "nb", "nd", "ne",
    "ng", "nl", "nn", "no", "nr", "nv", "ny", "oc", "oj", "om", "or", "os", "pa", "pi", "pl", "ps", "pt", "qu", "rm",
    "rn", "ro", "ru", "rw", "sa", "sc", "sd", "se", "sg", "si", "sk", "sl", "sm", "sn", "so", "sq", "sr", "ss", "st",
    "su", "sv", "sw", "ta", "te", "tg", "th", "ti", "tk", "tl", "tn", "to", "tr", "ts", "tt", "tw", "ty", "ug", "uk",
    "ur", "uz", "ve", "vi", "vo", "wa", "wo", "xh", "yi", "yo", "za", "zh", "zu",
)  # fmt: skip
"""The codes of ISO 639-1; of those of three letters there are thousands, and only their form is checked."""
_MORE_LANGUAGES = ("multilingual", "code")


def check_licence(licence: str) -> None:
    """Check that the Hub knows a licence.

    Raises:
        ValueError: If not.
    """
    if licence not in LICENCES:
        raise ValueError(f"license: {licence}; allowed: {', '.join(LICENCES)}")


def check_language(language: str) -> None:
    """Check that the Hub takes a language's code.

    Raises:
        ValueError: If not.
    """
    if language not in (*_LANGUAGES, *_MORE_LANGUAGES) and not re.fullmatch("[a-z]{3}", language):
        codes = "a code of two or three letters (ISO 639), such as en or deu"
        raise ValueError(f"language: {language}; allowed: {codes}, {', '.join(_MORE_LANGUAGES)}")


def check_dataset(dataset: str) -> None:
    """Check that a dataset's name is an id of the Hub.

    Raises:
        ValueError: If not.
    """
    if not is_hub_id(dataset):
        raise ValueError(f"datasets: {dataset}; allowed: ids of datasets on the Hub, such as PolyAI/banking77")


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a repository's id on the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def hub_id_of(name: str) -> str | None:
    """Return a model's id on the Hub by its name: one, or its folder in the cache of the Hub; None of other folders."""
    for part in PurePath(name).parts if os.path.isdir(name) else ():
        if cached := re.fullmatch(r"models--(.+)", part):
            return cached[1].replace("--", "/")
    return name if is_hub_id(name) and not os.path.isdir(name) else None
