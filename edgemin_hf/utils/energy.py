"""The energy that processors take, as Linux tells it (RAPL, "running average power limit")."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


def package_energy(powercap: Path = POWERCAP) -> dict[Path, int] | None:
    """Read the energy counter of each processor package, which AMD's processors have under Intel's name too.

    Args:
        powercap: The folder of the counters.

    Returns:
        Microjoules by counter; None where there is none, or it may not be read: most machines let root alone.

    Example:
        >>> from pathlib import Path
        >>> from edgemin_hf.utils.energy import package_energy
        >>> package_energy(Path("/nowhere")) is None
        True
    """
    found: dict[Path, int] = {}
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):  # "intel-rapl-mmio:*" tells the same again
            name = zone / "name"  # parts of a package, such as its cores, are counted in it
            if name.is_file() and name.read_text().startswith("package"):
                found[zone] = int((zone / "energy_uj").read_text())
    except (OSError, ValueError):
        return None
    return found or None


def energy_between(before: Mapping[Path, int], after: Mapping[Path, int]) -> int:
    """Return the microjoules between two readings; a counter that has run over begins at 0 again.

    Args:
        before: As of `package_energy`.
        after: Likewise, later, and before any counter could run over twice.
    """
    total = 0
    for zone, value in after.items():
        spent = value - before[zone]
        total += spent if spent >= 0 else spent + int((zone / "max_energy_range_uj").read_text()) + 1
    return total
