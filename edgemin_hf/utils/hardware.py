"""The machine and the versions of packages that a measurement was taken on."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from edgemin_hf.utils.records import Record

_PACKAGES = (
    "accelerate", "datasets", "edgemin-hf", "numpy", "onnx", "onnxruntime", "optimum", "optimum-onnx", "tokenizers",
    "torch", "transformers",
)  # fmt: skip


@dataclass(frozen=True)
class Environment(Record):
    """A machine, and the versions of what ran there.

    Attributes:
        cpu: How many processors of which name.
        cpu_capability: The instructions that PyTorch's kernels use, such as "AVX512".
        vnni: Whether the CPU has 8-bit dot products.
        bf16: Whether it has bfloat16 products.
        threads: Threads of a pass.
        system: Operating system and architecture.
        python: Version of Python.
        packages: Version of each package that is installed.
        device: Device that the model was on, where that may be another than the CPU.
    """

    cpu: str
    cpu_capability: str
    vnni: bool
    bf16: bool
    threads: int
    system: str
    python: str
    packages: dict[str, str]
    device: str | None = None


def environment(threads: int, *more_packages: str, device: str | None = None) -> Environment:
    """Describe this machine and the versions of its packages, those of further packages too.

    Args:
        threads: Threads of a pass.
        *more_packages: Packages beside those that every measurement needs.
        device: As in `Environment`.

    Returns:
        The description.
    """
    return Environment(
        cpu=_cpu_name(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        vnni=bool(cpu_flags() & {"avx512_vnni", "avx_vnni"}),
        bf16=bool(cpu_flags() & {"avx512_bf16", "amx_bf16"}),
        threads=threads,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: version(name) for name in (*_PACKAGES, *more_packages) if _is_installed(name)},
        device=device,
    )


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def cpu_flags() -> set[str]:
    """Return the processor's feature flags as Linux names them; none on other systems."""
    return set(_cpu_info("flags")[0].split()) if _cpu_info("flags") else set()


def _cpu_name() -> str:
    names = _cpu_info("model name")
    return f"{len(names)} x {names[0]}" if names else platform.processor() or "unknown"


def _cpu_info(key: str) -> list[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(key)]
