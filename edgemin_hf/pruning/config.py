"""Settings of structured pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from edgemin_hf.utils.settings import Settings

Saliencies = Literal["taylor", "taylor_weights", "fisher", "random", "snip_momentum", "magnitude", "gradient"]
INC_SALIENCIES = ("snip_momentum", "magnitude", "gradient")
"""The saliencies that Intel Neural Compressor provides."""
Schedule = Literal["one_shot", "cubic", "iterative"]
Scope = Literal["layer", "model"]

KERNEL_WIDTH = 32
"""Feed-forward widths are rounded to a multiple of this, which vectorised kernels like."""


@dataclass
class PruningConfig(Settings):
    """What is removed, chosen by what, and when.

    Heads, neurons and layers go by shares, or heads and neurons by one budget that chooses the mix: what costs least
    saliency for what it saves.

    Attributes:
        head_sparsity: Share of the heads to remove, 0 to below 1; at least one head of a layer stays.
        ffn_sparsity: Share of the feed-forward neurons to remove, 0 to below 1; what stays of a layer is rounded to a
            multiple of 32 where its width is one.
        layer_sparsity: Share of the layers to remove, 0 to below 1, before heads and neurons and before training: one
            by one the layer without which the loss is least. Not of ALBERT and ModernBERT.
        target_parameters: Budget of all of the model's parameters, instead of the two shares of heads and neurons: what
            goes costs least saliency for what it saves.
        target_latency_ms: Budget of one pass of 128 tokens through ONNX Runtime (fp32, one thread, the head apart),
            instead of the two shares, by a table of layer shapes that is measured on this machine when pruning
            begins. A resumed gradual run goes on with its table.
        scope: "layer" removes as many units from each layer: plain `transformers` reloads the result (5 only where all
            heads stayed: else `load_pruned`). "model" compares units of all layers, and needs `load_pruned`.
        saliency: "taylor" (|a . dL/da| of each example, Michel et al. 2019, arXiv 1905.10650), "taylor_weights"
            (|w . dL/dw| of a unit's weights, likewise, ROSITA, Liu et al. 2021, arXiv 2103.11367), "fisher" (the
            square of the first, then a search within each layer by their products, Kwon et al. 2022, arXiv
            2204.09656), "random": a control; or Intel Neural Compressor's "snip_momentum", "magnitude" and "gradient".
        saliency_examples: Number of training examples that the saliency is measured on.
        tune_masks: Whether what stays is scaled so that each layer's output comes closest to the unpruned model's (Kwon
            et al. 2022, section 4.3): for models that are not trained afterwards. One-shot only.
        schedule: "one_shot" removes everything before training; the others mask units while training goes on and
            remove them after it: "cubic" (Zhu and Gupta 2017, arXiv 1710.01878) many at first and few later,
            "iterative" as many each time. `load_best_model_at_end` and early stopping then look at evaluations after
            the last units are gone.
        start: Share of the training steps after which the first units go, with the other schedules.
        end: Share of the training steps after which the last ones are gone, with the other schedules.
        rounds: How many times units go from `start` to `end`.
        pruning_seed: Seed of the random control.

    Example:
        >>> from edgemin_hf import PruningConfig
        >>> PruningConfig(head_sparsity=0.5, ffn_sparsity=0.7).kept_neurons(1536)
        448
    """

    head_sparsity: float = 0.0
    ffn_sparsity: float = 0.0
    layer_sparsity: float = 0.0
    target_parameters: int | None = None
    target_latency_ms: float | None = None
    scope: Scope = "layer"
    saliency: Saliencies = "taylor"
    saliency_examples: int = 1024
    tune_masks: bool = False
    schedule: Schedule = "one_shot"
    start: float = 0.0
    end: float = 0.5
    rounds: int = 10
    pruning_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("head_sparsity", "ffn_sparsity", "layer_sparsity"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: 0 to below 1")
        for name, allowed in (("saliency", Saliencies), ("schedule", Schedule), ("scope", Scope)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"{name}: {getattr(self, name)}; allowed: {', '.join(get_args(allowed))}")
        for name in ("saliency_examples", "rounds", "target_parameters", "target_latency_ms"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: {value}; allowed: above 0")
        if not 0 <= self.pruning_seed < 2**32:
            raise ValueError(f"pruning_seed: {self.pruning_seed}; allowed: 0 to {2**32 - 1}")
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"start: {self.start} and end: {self.end}; allowed: 0 <= start < end <= 1")
        self._check_together()

    def _check_together(self) -> None:
        if self.has_budget and (self.head_sparsity or self.ffn_sparsity):
            raise ValueError("head_sparsity, ffn_sparsity: beside a target; allowed: 0, since the target chooses them")
        if self.target_parameters and self.target_latency_ms:
            raise ValueError("target_latency_ms: beside target_parameters; allowed: one of the two")
        if self.uses_inc and (self.has_budget or self.scope == "model"):
            raise ValueError(f"saliency: {self.saliency} with a target or scope model; allowed: taylor, fisher, random")
        if self.tune_masks and (self.schedule != "one_shot" or self.uses_inc):
            raise ValueError(
                f"tune_masks: true with schedule {self.schedule} and saliency {self.saliency}; allowed: with one_shot "
                "and a saliency that is not Neural Compressor's"
            )

    @property
    def uses_inc(self) -> bool:
        """Whether the units are chosen by Intel Neural Compressor."""
        return self.saliency in INC_SALIENCIES

    @property
    def has_budget(self) -> bool:
        """Whether a budget chooses how many heads and neurons go."""
        return self.target_parameters is not None or self.target_latency_ms is not None

    @property
    def removes_heads(self) -> bool:
        """Whether heads are to go."""
        return self.head_sparsity > 0 or self.has_budget

    def progress(self, done: float) -> float:
        """Return the share of the removal that is due after a share of the training steps, in steps of `rounds`."""
        if self.schedule == "one_shot":
            return 1.0
        rounds = int((done - self.start) / (self.end - self.start) * self.rounds + 1e-9)
        share = min(1.0, max(0, rounds) / self.rounds)
        return 1 - (1 - share) ** 3 if self.schedule == "cubic" else share

    def kept_heads(self, heads: int, progress: float = 1.0) -> int:
        """Return how many of a layer's heads stay."""
        return max(1, round(heads * (1 - progress * self.head_sparsity)))

    def kept_neurons(self, width: int, progress: float = 1.0) -> int:
        """Return how many of a layer's feed-forward neurons stay."""
        step = group_size(width)
        return max(step, step * round(width * (1 - progress * self.ffn_sparsity) / step))

    def kept_layers(self, layers: int) -> int:
        """Return how many layers stay."""
        return max(1, round(layers * (1 - self.layer_sparsity)))


def group_size(width: int) -> int:
    """Return how many neurons of a layer of this width go together."""
    return KERNEL_WIDTH if width % KERNEL_WIDTH == 0 else 1
