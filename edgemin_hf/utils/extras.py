"""Packages that only some settings need, by the extra that brings each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

_PACKAGES = {
    "inc": {"neural_compressor": "Neural Compressor", "optimum.intel.neural_compressor": "Optimum Intel"},
    "openvino": {"openvino": "OpenVINO", "nncf": "NNCF"},
    "rivals": {"sklearn": "scikit-learn", "model2vec.train": "model2vec"},
}
_FACTORY = ("torch", "transformers", "datasets", "pydantic", "onnx")
"""Packages that the extra `train` brings, of which one is missing where it was not asked for."""
_LIMITS = {"model2vec.train": " with transformers below 5.4, as in constraints.txt"}
"""What else a package wants."""


class MissingFactoryError(ValueError):
    """A command that needs what the extra `train` brings: one line."""


def check_factory(what: str) -> None:
    """Check that the extra `train` is installed.

    Args:
        what: What needs it, such as "edgemin run".

    Raises:
        MissingFactoryError: If it is not.
    """
    missing = next((package for package in _FACTORY if not _is_installed(package)), None)
    if missing is not None:
        raise MissingFactoryError(f"{what} without {missing}; allowed: after pip install 'edgemin-hf[train]'")


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
