"""What `sensitivity.json` holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgemin_hf.benchmark.rows import Score
from edgemin_hf.utils.hardware import Environment
from edgemin_hf.utils.records import Json, Record


@dataclass(frozen=True)
class CutRow(Record):
    """What a cut costs.

    Attributes:
        kind: What is cut: "heads", "neurons", or "layers" that are left out.
        layer: Number of the layer, from 1; None for all at once.
        sparsity: Share of the units that is masked.
        removed: Number of units that are masked.
        units: Number of units that there are.
        value: The metric with the cut.
        change: How much that is above the model as it is.
    """

    kind: str
    layer: int | None
    sparsity: float
    removed: int
    units: int
    value: float
    change: float


@dataclass(frozen=True)
class ModuleRow(Record):
    """What quantising one module alone costs; for the fields see `ModuleSensitivity`.

    Attributes:
        name: Its name in the model.
        kind: "linear" or "embedding".
        precision: "int8" or "int4".
        loss: How far the predictions move.
        size_bytes: Bytes of its weights and scales.
        saved_bytes: How many fewer that is than at each other precision.
        value: The metric with it.
        change: How much that is above the model as it is.
    """

    name: str
    kind: Literal["linear", "embedding"]
    precision: Literal["int8", "int4"]
    loss: float
    size_bytes: int
    saved_bytes: dict[str, int]
    value: float
    change: float


@dataclass(frozen=True)
class SensitivityRecord(Record):
    """The contents of a `sensitivity.json`.

    Attributes:
        base: The metric of the model as it is.
        measurements: What each cut costs; empty where cuts were not measured.
        quantization: What quantising each module costs, the largest loss first; likewise.
        quantization_loss: What the modules' loss is: "kl_divergence" or "squared_difference".
        shared_layers: Whether layers share their weights, so that one of them stands for several.
        settings: What was asked for.
        environment: Where it was measured.
    """

    base: Score
    measurements: tuple[CutRow, ...]
    quantization: tuple[ModuleRow, ...]
    quantization_loss: Literal["kl_divergence", "squared_difference"]
    shared_layers: bool
    settings: Json
    environment: Environment
