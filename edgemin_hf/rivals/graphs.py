"""A rival that is a graph beside a tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.benchmark.whole_call import WholeCall
from edgemin_hf.rivals.base import Given, Made

TOKENIZER = "tokenizer.json"


def made_of_call(name: str, call: WholeCall, size_bytes: int, given: Given) -> Made:
    """Answer the test texts, one at a time as they would be served.

    Args:
        name: What it is, in a table.
        call: A whole call.
        size_bytes: Size of all that it needs.
        given: What rivals are made of.
    """
    return Made(name, np.concatenate([call(text) for text in given.test]), size_bytes, call)


def made_of_graph(
    name: str, graph: Path, precision: str, size_bytes: int, given: Given, tokenizer: Path | None = None
) -> Made:
    """Run a graph in ONNX Runtime at one thread.

    Args:
        name: What it is; its precision is added.
        graph: The ONNX file.
        precision: Of its linear layers, as a manifest tells it.
        size_bytes: Its size.
        given: What rivals are made of.
        tokenizer: Its `tokenizer.json`; None where it lies beside the graph.
    """
    tokenizer = tokenizer or graph.with_name(TOKENIZER)
    call = WholeCall(OnnxRunner(graph, threads=1), tokenizer, given.task.max_length)
    precision = precision if precision == "fp32" else precision.upper()
    return made_of_call(f"{name}, {precision}", call, size_bytes + tokenizer.stat().st_size, given)
