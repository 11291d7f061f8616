"""Processes of their own, forked of ones that have imported what runs need and done nothing else.

`python -m edgemin_hf` takes ten seconds of a core for its imports alone, and tests start dozens. Python orders sets by
a seed that a process draws when it starts and its forks share: so there are two to fork of, and what must not depend on
that order is run on both.
"""

import importlib
import json
import os
import random
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import torch

from tests.helpers.garbage import frozen

ROOT = Path(__file__).parents[2]
IMPORTED = (
    "datasets", "matplotlib.pyplot", "onnxruntime", "scipy.stats", "sklearn", "edgemin_hf.cli",
    "edgemin_hf.recipe.runner", "edgemin_hf.recipe.yaml_file", "edgemin_hf.recipe.stages.known", "tests.helpers.models",
)  # fmt: skip


class Running:
    """Processes that were started, one a rank."""

    def __init__(self, parents, folder):
        self._parents, self._folder, self._done = parents, folder, None
        self.pids = [int(parent.stdout.readline()) for parent in parents]

    def wait(self):
        """Wait for all; return the first code that isn't 0, and what all printed, as `subprocess.run` does."""
        if self._done is None:
            codes = [int(parent.stdout.readline()) for parent in self._parents]
            printed = [sorted(self._folder.glob(f"*.{ending}")) for ending in ("out", "err")]
            told = ["".join(file.read_text() for file in files) for files in printed]
            self._done = subprocess.CompletedProcess(self.pids, next(filter(None, codes), 0), *told)
        return self._done


class Forks:
    """The processes to fork of; each starts when it is first needed."""

    def __init__(self):
        self._parents, self._last = {}, None

    def start(self, module, *arguments, processes=1, parent=0, **environment):
        """Run a module as `python -m` does, in one process or in several as `accelerate launch` starts them.

        What was started before ends first: a test that failed did not wait for it.
        """
        if self._last is not None:
            self._last.wait()
        if processes > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            several = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1"}
            environment |= {"ACCELERATE_USE_CPU": "true", "MASTER_PORT": port, **several}
        folder = Path(tempfile.mkdtemp())
        parents = [self._parent((parent + rank) % 2) for rank in range(processes)]
        for rank, one in enumerate(parents):
            own = environment | ({"RANK": rank, "LOCAL_RANK": rank} if processes > 1 else {})
            own = {name: str(value) for name, value in own.items()}
            asked = {"module": module, "arguments": [*map(str, arguments)], "environment": own}
            one.stdin.write(json.dumps(asked | {"printed": str(folder / str(rank))}) + "\n")
            one.stdin.flush()
        self._last = Running(parents, folder)
        return self._last

    def run(self, module, *arguments, **options):
        """Run a module, wait for its end, and check that it went well."""
        done = self.start(module, *arguments, **options).wait()
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    def close(self):
        for parent in self._parents.values():
            parent.stdin.close()
            try:
                parent.wait(timeout=60)
            except subprocess.TimeoutExpired:
                parent.kill()

    def _parent(self, number):
        if number not in self._parents:
            command, pipe = [sys.executable, "-m", "tests.helpers.forks"], subprocess.PIPE
            self._parents[number] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        return self._parents[number]


def serve():
    """Import everything; then, for each line of stdin, fork a process, and print its number and later its code."""
    with frozen():
        for name in IMPORTED:
            importlib.import_module(name)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _become(**json.loads(line))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(module, arguments, environment, printed):
    """Be what `python -m module` would have become, with random numbers of its own."""
    for number, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{printed}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ |= environment
    sys.argv = [module, *arguments]
    random.seed()
    np.random.seed()
    torch.seed()
    code = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
