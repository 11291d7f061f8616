"""A process that only runs an artefact, and tells what that costs: settings as JSON in, measurements as JSON out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edgemin_hf.runtime.loading import load
from edgemin_hf.runtime.one_call import runtime_call
from edgemin_hf.utils.energy import energy_between, package_energy

_STATUS = Path("/proc/self/status")
_ENERGY_SECONDS = 1.0
"""How long energy is measured: its counters move about a thousand times a second."""


def main() -> None:
    """Read an artefact's folder, threads and texts, run these, and write what that cost."""
    asked = json.load(sys.stdin)
    texts = [text if isinstance(text, str) else tuple(text) for text in asked["texts"]]
    start = time.perf_counter()
    model = load(asked["artefact"], threads=asked["threads"])
    loaded = time.perf_counter()
    call = runtime_call(model)
    call(texts[0])
    called = time.perf_counter()
    for text in texts:
        call(text)
    told = {"load_ms": 1e3 * (loaded - start), "first_call_ms": 1e3 * (called - loaded), "peak_bytes": peak_bytes()}
    before, calls, begin = package_energy(), 0, time.perf_counter()
    while before is not None and time.perf_counter() - begin < _ENERGY_SECONDS:
        call(texts[calls % len(texts)])
        calls += 1
    if before is not None and (after := package_energy()) is not None:
        told["energy_mj"] = energy_between(before, after) / 1e3 / calls
    json.dump(told, sys.stdout)


def peak_bytes() -> int:
    """Return the most memory that this process has held since it began.

    Linux hands `ru_maxrss` on to the program that a process starts: it may be the parent's. VmHWM is the program's own.
    """
    if _STATUS.is_file():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
