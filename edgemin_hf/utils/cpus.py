"""The processors that a process may use, what others do on them, and how threads wait; imports nothing heavy."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_WATCHED_S = 0.3
_BUSY = 0.25
"""Processors' worth of other programs from which a machine counts as busy."""
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""How OpenMP is told, GNU's and Intel's, that threads without work sleep."""
_set_here: list[str] = []
_held: list[object] = []


def usable_cpus() -> int:
    """Return on how many processors this process may run; on systems that do not tell (macOS, Windows), all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_of_node() -> int:
    """Return how many processes a launcher started on this machine, which share its processors; 1 without one."""
    names = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 1)


def spin_only_alone() -> None:
    """Let PyTorch's threads sleep while they wait for each other, if this is not the only program at work here.

    By default they spin, which takes a fifth off a training that is alone, and makes two on the same processors slow
    each other ten to twenty times (docs/experiments.md). One that sleeps beside one that spins costs neither much. So
    a process spins where the machine is idle when it begins, and no other of this package has begun to. It is too late
    once PyTorch is imported, and whoever has set how threads wait is heeded.
    """
    if "torch" in sys.modules or (processes_of_node() == 1 and others_load() < _BUSY and _is_first()):
        return
    for name in _PASSIVE.keys() - os.environ.keys():
        os.environ[name] = _PASSIVE[name]
        _set_here.append(name)


def _is_first() -> bool:
    """Return whether no other process of this user's holds the lock, which this one then keeps until it ends."""
    from filelock import FileLock, Timeout

    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemin"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "threads.lock")
        lock.acquire(blocking=False)
    except (OSError, RuntimeError, Timeout):  # also where there is no home, or it can't be written to
        return False
    _held.append(lock)
    return True


def waits_passively() -> bool:
    """Return whether `spin_only_alone` changed how threads wait."""
    return bool(_set_here)


@contextmanager
def waiting_as_before() -> Iterator[None]:
    """Let processes that begin meanwhile wait as they would without `spin_only_alone`."""
    for name in _set_here:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: _PASSIVE[name] for name in _set_here})


def others_load() -> float:
    """Return how many processors' worth of other programs there are now, of the processors that this one may use.

    Watched for a moment on Linux, while this process sleeps; elsewhere the load of the last minute, this process's own
    with it; 0 where a system tells neither.
    """
    before = _times()
    if not before:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    time.sleep(_WATCHED_S)
    after = _times()
    shares = [
        1 - (after[cpu][0] - idle) / (after[cpu][1] - total)
        for cpu, (idle, total) in before.items()
        if cpu in after and after[cpu][1] > total
    ]
    return max(0.0, sum(shares))


def warn_if_busy(what: str) -> None:
    """Log a warning if other programs are at work, by which `what` suffers."""
    load = others_load()
    if load >= _BUSY:
        logger.warning("other programs use %.1f of %d processors: %s", load, usable_cpus(), what)


def _times() -> dict[int, tuple[int, int]]:
    """Return, for each processor that may be used, how long it was idle and how long it was there; {} if not told."""
    file = Path("/proc/stat")
    if not file.is_file() or not hasattr(os, "sched_getaffinity"):
        return {}
    usable, found = os.sched_getaffinity(0), dict[int, tuple[int, int]]()
    for line in file.read_text(encoding="utf-8").splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in usable:
            times = list(map(int, numbers[:8]))
            found[int(name[3:])] = (times[3] + times[4], sum(times))
    return found
