"""What a process costs that does nothing but run an artefact: load time, memory, energy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgemin_hf.benchmark.rows import Alone
from edgemin_hf.data.tables import Text


def measured_alone(artefact: Path, threads: int, texts: Sequence[Text]) -> Alone:
    """Run an artefact in a process of its own, with the base install's packages alone.

    Args:
        artefact: The folder.
        threads: Threads of a pass.
        texts: Texts, or pairs, to run, one at a time.

    Returns:
        What it cost.

    Raises:
        RuntimeError: If the process ended otherwise than it should.
    """
    asked = json.dumps({"artefact": str(artefact), "threads": threads, "texts": list(texts)})
    found = subprocess.run(
        [sys.executable, "-P", "-m", "edgemin_hf.benchmark.alone_process"],
        input=asked.encode(),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=False,
    )
    if found.returncode:
        told = found.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"a process with the artefact alone ended with {found.returncode}: {' '.join(told)}")
    return Alone.from_dict(json.loads(found.stdout))
