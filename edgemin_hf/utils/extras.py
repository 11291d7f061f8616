"""Packages that only some settings need, by the extra that brings each."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

_PACKAGES = {"inc": ("neural_compressor", "Neural Compressor"), "openvino": ("openvino", "OpenVINO")}


def check_extra(extra: Literal["inc", "openvino"], setting: str) -> None:
    """Check that the package of an extra is installed.

    Args:
        extra: The extra.
        setting: What asks for it, such as "provider: inc".

    Raises:
        ValueError: If it is not.
    """
    package, title = _PACKAGES[extra]
    if find_spec(package) is None:
        raise ValueError(f"{setting} without {title}; allowed: after pip install 'edgemin-hf[{extra}]'")
