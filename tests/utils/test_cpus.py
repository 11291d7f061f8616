import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgemin_hf.utils import cpus
from edgemin_hf.utils.cpus import others_load, processes_of_node, usable_cpus, warn_if_busy

PACKAGE = Path(cpus.__file__).parents[1]

ELSEWHERE = """
import builtins, os
UNIX, plain = {"fcntl", "resource", "termios", "pwd", "grp"}, builtins.__import__
def ours_find_none(name, globals=None, *rest, **named):
    if name in UNIX and globals is not None and globals.get("__name__", "").startswith("edgemin_hf"):
        raise ModuleNotFoundError(name)
    return plain(name, globals, *rest, **named)
builtins.__import__ = ours_find_none  # what other packages import elsewhere is theirs to know
for name in ("sched_getaffinity", "getloadavg", "fork"):
    if hasattr(os, name):
        delattr(os, name)
import importlib, pkgutil
import edgemin_hf
for module in pkgutil.walk_packages(edgemin_hf.__path__, "edgemin_hf."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
from edgemin_hf.utils.cpus import others_load, usable_cpus
assert usable_cpus() == os.cpu_count()
assert others_load() == 0.0
"""


def inherited():
    """Return the environment without what tells threads how to wait."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_"))}


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**inherited(), **environment}
    )


@pytest.mark.long
def test_every_module_is_imported_where_unix_modules_are_missing():
    done = python(ELSEWHERE)
    assert done.returncode == 0, done.stderr


def test_cpus_of_systems_that_do_not_tell(monkeypatch):
    assert usable_cpus() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cpus() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cpus() == 1
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 1.0, 1.0))
    assert others_load() == 1.5
    monkeypatch.delattr(os, "getloadavg")
    assert others_load() == 0.0


def test_processes_share_a_machine_not_the_world(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert processes_of_node() == 1
    monkeypatch.setenv("WORLD_SIZE", "64")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert processes_of_node() == 8


def test_a_busy_machine_is_told(monkeypatch, caplog):
    times = iter([{0: (0, 0), 1: (0, 0)}, {0: (25, 100), 1: (100, 100)}] * 2)
    monkeypatch.setattr(cpus, "_times", lambda: next(times))
    monkeypatch.setattr(cpus.time, "sleep", lambda seconds: None)
    assert others_load() == 0.75
    with caplog.at_level(logging.WARNING):
        warn_if_busy("latencies come out too long")
    assert "other programs use 0.8 of" in caplog.text or "other programs use 0.7 of" in caplog.text
    assert "latencies come out too long" in caplog.text
    caplog.clear()
    monkeypatch.setattr(cpus, "others_load", lambda: 0.1)
    warn_if_busy("latencies come out too long")
    assert not caplog.text


WAITING = """
import os, sys, time
from edgemin_hf.utils import cpus
cpus.others_load = lambda: float(os.environ.get("LOAD", 0))
cpus.spin_only_alone()
with cpus.waiting_as_before():
    inside = os.environ.get("OMP_WAIT_POLICY")
print(os.environ.get("OMP_WAIT_POLICY"), inside, cpus.waits_passively(), os.environ.get("KMP_BLOCKTIME"), flush=True)
"""
SPINS, SLEEPS = ["None", "None", "False", "None"], ["PASSIVE", "None", "True", "0"]


@pytest.mark.long
def test_threads_spin_in_a_process_that_is_alone(tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path)}
    assert python(WAITING, **home).stdout.split() == SPINS
    assert python(WAITING, **home, LOAD="1").stdout.split() == SLEEPS
    assert python(WAITING, **home, LOCAL_WORLD_SIZE="2").stdout.split() == SLEEPS
    assert python(WAITING, XDG_CACHE_HOME="/dev/null").stdout.split() == SLEEPS
    chosen = python(WAITING, **home, LOAD="1", OMP_WAIT_POLICY="ACTIVE", KMP_BLOCKTIME="5").stdout.split()
    assert chosen == ["ACTIVE", "ACTIVE", "False", "5"]
    assert python("import torch\n" + WAITING, **home, LOAD="1").stdout.split()[0] == "None"


@pytest.mark.long
def test_one_process_at_a_time_spins(tmp_path):
    environment = {**inherited(), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", WAITING + "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as first:
        assert first.stdout.readline().split() == SPINS
        assert python(WAITING, XDG_CACHE_HOME=str(tmp_path)).stdout.split() == SLEEPS
        first.communicate("\n")
    assert python(WAITING, XDG_CACHE_HOME=str(tmp_path)).stdout.split() == SPINS
