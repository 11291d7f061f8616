"""The whole call, text in and answer out, as a server without PyTorch makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.benchmark.measure import Name, Row, measure_latency
from edgemin_hf.benchmark.runners import Inputs, Prepared, Runner
from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.answers import Answerer
from edgemin_hf.runtime.artefact import read_artefact
from edgemin_hf.runtime.classifiers import Classifier, MultiLabelClassifier, Regressor
from edgemin_hf.runtime.embeddings import Embedder
from edgemin_hf.runtime.entities import Tagger
from edgemin_hf.runtime.loading import MODELS, load
from edgemin_hf.runtime.model import Model
from edgemin_hf.runtime.reader import Reader

Call = Callable[[Text], object]
"""Answers a text, or a pair."""
PipelineMaker = Callable[[Path, str, int], Call | None]
"""Makes a call through Optimum's pipeline of an artefact's folder, the file of a graph and a number of threads; None
where there is no such pipeline."""


class WholeCall:
    """The logits of a text, by a runner and the runtime's own reader.

    Args:
        runner: What runs the graph.
        tokenizer: The `tokenizer.json` of its model.
        max_length: Tokens after which a text is cut.
    """

    def __init__(self, runner: Runner, tokenizer: Path, max_length: int) -> None:
        self.runner = runner
        self.reader = Reader(tokenizer, max_length)

    def inputs(self, text: Text) -> dict[str, NDArray[np.int64]]:
        """Return the inputs (1, length) of a text or a pair."""
        return self.reader.arrays(self.reader.read(text))

    def __call__(self, text: Text) -> NDArray[np.float32]:
        """Return the logits (1, labels) of a text or a pair."""
        return self.runner.run(self.runner.prepare(self.inputs(text)))


class CallRunner:
    """A whole call as a runner: nothing is prepared outside of the measured time.

    Args:
        call: Answers a text.
    """

    def __init__(self, call: Call) -> None:
        self.call = call

    def prepare(self, inputs: Inputs) -> Prepared:
        """Return the text, which stands for its inputs."""
        return cast(Prepared, inputs)

    def run(self, prepared: Prepared) -> NDArray[np.float32]:
        """Answer it; what comes is no array, and nobody reads it."""
        return cast(NDArray[np.float32], self.call(cast(Text, prepared)))


def measure_calls(calls: Mapping[Name, Call], texts: Sequence[Text], rounds: int) -> dict[Name, NDArray[np.float64]]:
    """Time whole calls on the same texts, in turns; as `measure_latency`.

    Args:
        calls: The calls by any names.
        texts: The texts.
        rounds: Number of counted rounds.
    """
    inputs = cast(Mapping[Name, Sequence[Inputs]], dict.fromkeys(calls, texts))
    runners = {row: CallRunner(call) for row, call in calls.items()}
    return measure_latency(runners, inputs, rounds, "Whole calls")


def whole_calls(
    artefact: Path, texts: Sequence[Text], threads: int, rounds: int, pipeline: PipelineMaker | None = None
) -> dict[Row, NDArray[np.float64]]:
    """Time whole calls of each of an artefact's graphs for ONNX Runtime, by the runtime and through Optimum's pipeline.

    Args:
        artefact: The folder.
        texts: Texts, or pairs.
        threads: Threads of a pass.
        rounds: Number of counted rounds.
        pipeline: Makes the calls through Optimum's pipeline, where it is installed.

    Returns:
        Milliseconds (rounds * texts,), by ("runtime" or "optimum", "onnxruntime", the precision); nothing of an
        artefact that the runtime can't run.
    """
    calls: dict[Row, Call] = {}
    if not (artefact / "tokenizer.json").is_file() or (read := read_artefact(artefact)).task not in MODELS:
        return {}  # a slow tokenizer, which only `transformers` reads, or a task that the runtime does not know
    for graph in read.graphs:
        calls["runtime", "onnxruntime", graph.variant] = runtime_call(load(artefact, graph.file, threads))
        through = None if pipeline is None else pipeline(artefact, graph.file, threads)
        if through is not None:
            calls["optimum", "onnxruntime", graph.variant] = through
    return measure_calls(calls, texts, rounds)


def runtime_call(model: Model) -> Call:
    """Return what answers a text or a pair by the runtime: a label, scores, entities, an answer, or a vector.

    Raises:
        ValueError: If there is nothing that such a model can be asked.
    """
    match model:
        case Classifier() | MultiLabelClassifier() | Regressor():
            if len(model.artefact.reading.columns) < 2:
                return model.predict
            # Where a text stands for a pair, as the built-in sentences do, its second is empty.
            return lambda text: model.predict((text, "") if isinstance(text, str) else text)
        case Tagger():
            return lambda text: model.entities(_first(text))
        case Embedder():
            return lambda text: model.encode(_first(text))
        case Answerer():
            return lambda text: model.answer(*(text if isinstance(text, tuple) else (text, text)))
    raise ValueError(f"{model.task}: no whole call")


def _first(text: Text) -> str:
    return text if isinstance(text, str) else text[0]
