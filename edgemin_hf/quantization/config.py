"""Settings of quantisation-aware training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

from edgemin_hf.utils.settings import Settings

Precision = Literal["int8", "int4", "fp32"]


@dataclass
class QuantizationConfig(Settings):
    """Settings of quantisation-aware training.

    Attributes:
        weights: Precision of every linear layer. "int8": weights by output row, inputs uint8 by tensor. "int4": weights
            alone, by groups of a row; inputs stay in floating point, so there are no ranges.
        embeddings: Precision of the tables of words and positions: "int8" by row, "int4" by groups of a row, or "fp32".
        group_size: Number of weights that share a scale where "int4" is asked for: 32, 64 or 128 (5, 4.5 or 4.25 bits a
            weight, scale included).
        provider: Who gives the fake quantisers of the linear layers: "native", plain modules of ours, or "inc", Intel
            Neural Compressor (INT8 only).
        calibration_examples: Number of training examples that the first input ranges are taken from.
        range_momentum: Share of a training batch's range in the running range of a layer's input.
        frozen_share: Last share of the training steps, in which the ranges stay as they are and the weights settle.
        overrides: Precision of single linear layers and tables: by the name of a module or of one that holds it, or a
            pattern of names (`fnmatch`: "*.attention.*"). Where several match, that with the most characters beside
            wildcards decides. Layers are numbered as in the model when it is first prepared.
        target_size_mb: Largest size of the exported graph, in MB of 10^6 bytes: a recipe then chooses INT8 or INT4 for
            each layer that `overrides` do not name, by what it costs (`edgemin_hf.sensitivity.meet_size`); for tables
            where `embeddings` is "int8".
        reduce_range: Whether INT8 weights of linear layers, and tables tied to them, use 7 bits, -64..64, which every
            processor's kernels add exactly. Those of x86 CPUs without VNNI add pairs of uint8 x int8 products in
            int16, where 8 bits saturate in any program that does not ask ONNX Runtime for more; the runtime does.
        ranges: What becomes of the calibrated input ranges of INT8 linear layers in training. "observed": each runs
            after those of the batches. "learned": the optimizer trains their ends (LSQ, arXiv 1902.08153).
        range_learning_rate: Peak learning rate of learned ranges, as factors of the calibrated ones; warm-up and decay
            are those of the weights' rate.

    Example:
        >>> from edgemin_hf import QuantizationConfig
        >>> QuantizationConfig(overrides={"classifier": "fp32", "*.attention.*": "int4"}).weights
        'int8'
    """

    weights: Literal["int8", "int4"] = "int8"
    embeddings: Literal["int8", "int4", "fp32"] = "int8"
    group_size: Literal[32, 64, 128] = 32
    provider: Literal["native", "inc"] = "native"
    calibration_examples: int = 512
    range_momentum: float = 0.01
    frozen_share: float = 0.33
    overrides: dict[str, Literal["int8", "int4", "fp32"]] = field(default_factory=dict)
    target_size_mb: float | None = None
    reduce_range: bool = True
    ranges: Literal["observed", "learned"] = "observed"
    range_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("weights", "embeddings", "group_size", "provider", "ranges"):
            allowed = get_args(get_type_hints(QuantizationConfig)[name])
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: {', '.join(map(str, allowed))}")
        if self.provider == "inc" and self.weights != "int8":
            raise ValueError(f"provider: inc with weights {self.weights}; allowed: native, or weights int8")
        for pattern, precision in self.overrides.items():
            if precision not in get_args(Precision):
                raise ValueError(f"overrides: {precision} for {pattern}; allowed: {', '.join(get_args(Precision))}")
        if self.provider == "inc" and self.ranges != "observed":
            raise ValueError(f"ranges: {self.ranges} with provider inc; allowed: observed, or provider native")
        if not 0 <= self.range_learning_rate < float("inf"):
            raise ValueError(f"range_learning_rate: {self.range_learning_rate}; allowed: 0 or more")
        if self.target_size_mb is not None:
            _check_target_size(self)
        if self.calibration_examples < 1:
            raise ValueError(f"calibration_examples: {self.calibration_examples}; allowed: 1 or more")
        for name in ("range_momentum", "frozen_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 0 to 1")


def _check_target_size(config: QuantizationConfig) -> None:
    if config.target_size_mb is not None and not 0 < config.target_size_mb < float("inf"):
        raise ValueError(f"target_size_mb: {config.target_size_mb}; allowed: above 0")
    for name, needed in (("weights", "int8"), ("provider", "native")):
        if getattr(config, name) != needed:
            found = f"{name} {getattr(config, name)}"
            raise ValueError(f"target_size_mb: beside {found}; allowed: {name} {needed}")
