"""What `benchmark.json` holds: a row a model, runtime and precision, and the machine that it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.runtime.artefact import preference
from edgemin_hf.utils.hardware import Environment
from edgemin_hf.utils.records import Record

Row = tuple[str, str, str]
"""Model ("teacher", "student"), runtime ("pytorch", "onnxruntime", "openvino"), variant ("fp32", "int8-fused")."""


def deployed(rows: Sequence[Row]) -> Row:
    """Pick the row to deploy, which is what `edgemin_hf.runtime.load` takes by itself.

    That is the student's fused graph in ONNX Runtime, else its first quantised one there, else its first there, else
    its last. Without a student any model's rows count.

    Example:
        >>> from edgemin_hf.benchmark.rows import deployed
        >>> deployed([("teacher", "pytorch", "fp32"), *[("student", "onnxruntime", each) for each in ("fp32", "int8")]])
        ('student', 'onnxruntime', 'int8')
    """
    candidates = [row for row in rows if row[0] == "student"] or rows
    graphs = [row for row in candidates if row[1] == "onnxruntime"]
    return min(graphs, key=lambda row: preference(row[2]), default=candidates[-1])


@dataclass(frozen=True)
class Score(Record):
    """A metric of some predictions, as `edgemin_hf.tasks.metrics.measure` gives it.

    Attributes:
        metric: Its name.
        value: Its value, at most 1.
        ci95: Both ends of its 95% interval; None where it has none.
        n: Number of examples.
        greater_is_better: Whether more is better, of a metric that does not ship.
    """

    metric: str
    value: float
    ci95: tuple[float, float] | None
    n: int
    greater_is_better: bool = True


@dataclass(frozen=True)
class Latency(Record):
    """Percentiles of the milliseconds of a call.

    Example:
        >>> from edgemin_hf.benchmark import Latency
        >>> Latency(p50=0.6, p90=0.7, p99=0.9).to_dict()
        {'p50': 0.6, 'p90': 0.7, 'p99': 0.9}
    """

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, ms: NDArray[np.float64]) -> Self:
        """Return the percentiles of calls that lasted so many milliseconds each."""
        return cls(*(float(np.percentile(ms, q)) for q in (50, 90, 99)))


@dataclass(frozen=True)
class BenchmarkRow(Record):
    """What was measured of one model in one runtime.

    Attributes:
        model: "teacher" or "student".
        runtime: As in the manifest.
        precision: Likewise, with "-fused" of a second graph.
        metric: Name of the task's metric; None where no predictions were measured.
        value: As in `Score`, likewise; so are `ci95` and `n`.
        ci95: Both ends of the 95% interval.
        n: Number of examples.
        parameters: Number of parameters.
        size_bytes: Size on disk.
        batch_size: Texts of a call.
        threads: Threads of a pass.
        latency_ms: Latency of the graph alone.
        whole_call_ms: Latency of a whole call by `edgemin_hf.runtime`, text in and answer out; None where there is no
            such.
        optimum_call_ms: Likewise through Optimum's pipeline.
        greater_is_better: As in `Score`.

    Example:
        >>> from edgemin_hf.benchmark import BenchmarkRow, Latency
        >>> score = {"metric": "accuracy", "value": 0.92, "ci95": (0.91, 0.93), "n": 3080}
        >>> cost = {"parameters": 1000, "size_bytes": 4096, "batch_size": 1, "threads": 1}
        >>> row = BenchmarkRow("student", "onnxruntime", "int8", **score, **cost, latency_ms=Latency(0.6, 0.7, 0.9))
        >>> row.label, row.score.value
        ('student · onnxruntime · int8', 0.92)
    """

    model: str
    runtime: str
    precision: str
    metric: str | None
    value: float | None
    ci95: tuple[float, float] | None
    n: int | None
    parameters: int
    size_bytes: int
    batch_size: int
    threads: int
    latency_ms: Latency
    greater_is_better: bool = True
    whole_call_ms: Latency | None = None
    optimum_call_ms: Latency | None = None

    @property
    def score(self) -> Score | None:
        """The metric of its predictions; None where they were not measured."""
        if self.metric is None or self.value is None or self.n is None:
            return None
        return Score(self.metric, self.value, self.ci95, self.n, self.greater_is_better)

    @property
    def row(self) -> Row:
        """Its model, runtime and precision."""
        return self.model, self.runtime, self.precision

    @property
    def label(self) -> str:
        """Its name in figures, such as "teacher · onnxruntime · int8"."""
        return f"{self.model} · {self.runtime} · {self.precision}"


@dataclass(frozen=True)
class LengthLatency(Record):
    """The latency of a whole call on texts of one length.

    Attributes:
        tokens: Their tokens, special ones included.
        p50: Milliseconds within which half of the calls return.
        p95: Those within which 95% do.
    """

    tokens: int
    p50: float
    p95: float


@dataclass(frozen=True)
class Alone(Record):
    """What a process costs that does nothing but run the artefact by `edgemin_hf.runtime`.

    Attributes:
        load_ms: Milliseconds until the model is loaded, after the imports.
        first_call_ms: Those of the first call.
        peak_bytes: The most memory that it held.
        energy_mj: Millijoules a call of the whole processor package, by RAPL; None where the machine does not tell.
    """

    load_ms: float
    first_call_ms: float
    peak_bytes: int
    energy_mj: float | None = None


@dataclass(frozen=True)
class Benchmark(Record):
    """The contents of a `benchmark.json`.

    Attributes:
        rows: The rows.
        environment: The machine.
        by_length: Whole calls of the file that the runtime takes by itself, by the texts' length.
        alone: What a process costs that only runs that file; None where the runtime can't run it.

    Example:
        >>> from edgemin_hf.benchmark import Benchmark
        >>> from edgemin_hf.utils.hardware import environment
        >>> Benchmark(rows=(), environment=environment(threads=1)).environment.threads
        1
    """

    rows: tuple[BenchmarkRow, ...]
    environment: Environment
    by_length: tuple[LengthLatency, ...] = ()
    alone: Alone | None = None
