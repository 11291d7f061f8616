"""Packages that only some settings need, by the extra that brings each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

_PACKAGES = {
    "inc": {"neural_compressor": "Neural Compressor", "optimum.intel.neural_compressor": "Optimum Intel"},
    "openvino": {"openvino": "OpenVINO", "nncf": "NNCF"},
    "rivals": {"sklearn": "scikit-learn", "model2vec.train": "model2vec"},
}
_LIMITS = {"model2vec.train": " with transformers below 5.4, as in constraints.txt"}
"""What else a package wants."""


def check_extra(extra: Literal["inc", "openvino", "rivals"], setting: str, only: str | None = None) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: The extra.
        setting: What asks for it, such as "provider: inc".
        only: The one package of the extra that it needs; None for all.

    Raises:
        ValueError: If one is not.
    """
    for package, title in _PACKAGES[extra].items():
        if only in (None, package) and not _is_installed(package):
            how = f"pip install 'edgemin-hf[{extra}]'{_LIMITS.get(package, '')}"
            raise ValueError(f"{setting} without {title}; allowed: after {how}")


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the package that it is a part of
        return False
