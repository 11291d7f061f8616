"""Whether a change of the code moved a byte: the quickstart's recipe with few steps, and a sha256 of all that it makes.

    python benchmarks/same_bytes.py --output before.json     # before the change
    python benchmarks/same_bytes.py --compare before.json    # after it: names what differs, exit code 1 if anything

Hashed are the weights of every stage, the predictions and the graphs. Latencies, figures and the fidelity's numbers are
measurements and not hashed. The same machine and threads are needed: other kernels add in another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
STEPS = {"finetune": 6, "distill": 6, "prune": 8, "quantize": 6}
MEASURED = ("latencies.safetensors",)


def main() -> int:
    """Run the recipe, write or compare the hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the hashes as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="hashes of an earlier run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = hashes(Path(folder) / "run")
    print(f"{len(found)} files hashed")
    if options.output:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.compare is None:
        return 0
    before = json.loads(options.compare.read_text(encoding="utf-8"))
    different = sorted(name for name in before.keys() | found.keys() if before.get(name) != found.get(name))
    for name in different:
        print(f"{name}: {before.get(name, 'missing')[:12]} -> {found.get(name, 'missing')[:12]}")
    print(f"{len(different)} of {len(before)} differ")
    return bool(different)


def hashes(output: Path) -> dict[str, str]:
    """Run the recipe into a folder; return the sha256 of each file of weights, predictions or a graph, by its path."""
    settings = [f"output_dir={output}", "benchmark.rounds=1", "benchmark.sentences=50"]
    settings += [f"{stage}.max_steps={steps}" for stage, steps in STEPS.items()]
    command = [sys.executable, "-m", "edgemin_hf", "run", str(RECIPE)]
    start = time.perf_counter()
    subprocess.run([*command, *(part for setting in settings for part in ("--set", setting))], check=True)  # noqa: S603
    print(f"the recipe took {time.perf_counter() - start:.0f} s")
    files = [file for kind in ("*.safetensors", "*.onnx") for file in output.rglob(kind) if file.name not in MEASURED]
    return {str(file.relative_to(output)): _sha256(file) for file in sorted(files)}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
