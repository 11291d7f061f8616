"""Whole calls of an artefact: by `edgemin_hf.runtime`, beside its parts alone and Optimum's pipeline.

    python benchmarks/runtime.py runs/quickstart/artefact --texts recipes/data/banking77/test.tsv --output runtime.json

One process, one thread; the ways take turns, a round over the texts each, and a ratio is the median over the rounds.
The parts alone are what nobody can leave out: tokenising, and the session's own run with arrays of ids.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
from common import write_json
from tokenizers import Tokenizer

from edgemin_hf.benchmark.whole_call import measure_calls
from edgemin_hf.neural_compressor.optimum_pipelines import optimum_call
from edgemin_hf.runtime import Model, load
from edgemin_hf.runtime.one_call import runtime_call
from edgemin_hf.runtime.sessions import session_options


def parts_alone(model: Model) -> Callable[[str], object]:
    """Return what tokenises a text and runs a session, and nothing else."""
    tokenizer = Tokenizer.from_file(str(model.artefact.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(model.artefact.max_length)
    graph = str(model.artefact.folder / model.file.file)
    session = onnxruntime.InferenceSession(graph, session_options(1), providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def call(text: str) -> object:
        encoded = tokenizer.encode(text)
        tensors = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        return session.run(None, {name: np.array([tensors[name]], dtype=np.int64) for name in names})

    return call


def main() -> None:
    """Measure, print the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--texts", type=Path, required=True, help="a .tsv whose first column has the texts")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with options.texts.open(encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1 : options.count + 1]
    model = load(options.artefact)
    ways = {"parts alone": parts_alone(model), "runtime": runtime_call(model)}
    through = optimum_call(options.artefact, model.file.file, 1)
    if through is not None:
        ways["optimum"] = through
    times = measure_calls(ways, texts, options.rounds)
    of_rounds = {name: np.median(ms.reshape(options.rounds, -1), axis=1) for name, ms in times.items()}
    median = {name: float(np.median(values)) for name, values in of_rounds.items()}
    ratios = {
        f"runtime / {name}": float(np.median(of_rounds["runtime"] / values))
        for name, values in of_rounds.items()
        if name != "runtime"
    }
    for name, value in median.items():
        print(f"{name:12} p50 {value:.3f} ms")
    for name, value in ratios.items():
        print(f"{name}: {value:.3f}")
    write_json(options.output, {"texts": len(texts), "rounds": options.rounds, "p50_ms": median, "ratios": ratios})


if __name__ == "__main__":
    main()
