"""The gate of a recipe: what an artefact must reach to be pushed."""

from __future__ import annotations

from dataclasses import asdict

from pydantic.dataclasses import dataclass

from edgemin_hf.benchmark.rows import Benchmark
from edgemin_hf.export.manifest import Bound
from edgemin_hf.recipe.schema import STRICT, Positive
from edgemin_hf.report.page import finished_row, kept_share


@dataclass(config=STRICT)
class Gate:
    """Bounds for the model to deploy, as the benchmark's table has it; None sets none.

    Attributes:
        retention: Share of the teacher's metric that it must keep.
        max_latency_ms: The most that half of its calls may take (p50 of the graph), in milliseconds.
        max_size_mb: The most that its file may take, in 10^6 bytes.
    """

    retention: Positive | None = None
    max_latency_ms: Positive | None = None
    max_size_mb: Positive | None = None

    def bounds(self, benchmark: Benchmark) -> tuple[Bound, ...]:
        """Return the bounds that are set, with what was measured."""
        row = finished_row(benchmark.rows)
        measured = {
            "retention": kept_share(benchmark.rows, row),
            "max_latency_ms": row.latency_ms.p50,
            "max_size_mb": row.size_bytes / 1e6,
        }
        return tuple(Bound(name, bound, measured[name]) for name, bound in asdict(self).items() if bound is not None)
