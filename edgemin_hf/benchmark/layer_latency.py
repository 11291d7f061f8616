"""What heads and feed-forward neurons cost in milliseconds on this machine: graphs of a few shapes, measured."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from edgemin_hf.benchmark.measure import measure_latency
from edgemin_hf.benchmark.runners import OnnxRunner
from edgemin_hf.export.onnx_graph import write_graph
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.families import first_position, shape_of
from edgemin_hf.modeling.pruned_shape import unpruned
from edgemin_hf.modeling.surgery import Selection, remove
from edgemin_hf.pruning.config import group_size

logger = logging.getLogger(__name__)

LENGTH = 128
"""Tokens of the pass that is measured; fewer where a model has fewer positions."""

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of heads and of neurons; of 0 the fewest that a layer can have."""
_VOCABULARY = 1024
"""Rows of words in the measured graphs: a pass reads 128 of them, however many there are."""
_ROUNDS = 25
_PASSES = 3
"""Passes of a graph in a round: the first finds the caches full of another's weights, the median does not see it."""


class LatencyTable:
    """Costs in milliseconds of a pass, from measured passes of models whose layers are all alike.

    With h heads and n neurons in each layer a pass lasts fixed + sum over layers of A(h) + F(n). A comes from models
    with all neurons, F from models with all heads; both are made monotone (the running maximum) and are linear between
    measured counts. A of the fewest heads and F of the fewest neurons are 0: what they cost can't go, and is fixed.

    Args:
        by_heads: Counts of heads, in rising order up to all, and the milliseconds of a pass with them and all neurons,
            float64 (counts, 2).
        by_neurons: Likewise of neurons, with all heads.
        calls: How many layers each block of an `Encoder` is: 1, or more where layers share weights, int64 (blocks,).

    Attributes:
        fixed: Milliseconds that stay with the fewest heads and neurons in each layer.
    """

    name = "target_latency_ms"

    def __init__(self, by_heads: Tensor, by_neurons: Tensor, calls: Tensor) -> None:
        self._state = {"by_heads": by_heads, "by_neurons": by_neurons, "calls": calls}
        self._calls: list[int] = calls.tolist()
        heads, neurons = _of_every_count(by_heads), _of_every_count(by_neurons)
        # The pass of all heads and all neurons is the last row of both.
        self.fixed = float(max(heads[-1], neurons[-1]) - (heads[-1] - heads[0]) - (neurons[-1] - neurons[0]))
        self._heads, self._neurons = ((ms - ms[0]) / sum(self._calls) for ms in (heads, neurons))

    def heads(self, layer: int, count: int) -> float:
        """Return the milliseconds of a layer's heads, beyond those of the fewest."""
        return self._calls[layer] * float(self._heads[count])

    def neurons(self, layer: int, count: int) -> float:
        """Return the milliseconds of a layer's neurons, beyond those of the fewest."""
        return self._calls[layer] * float(self._neurons[count])

    def state(self) -> dict[str, Tensor]:
        """Return what was measured: the arguments that make the same table again."""
        return self._state


def _of_every_count(measured: Tensor) -> NDArray[np.float64]:
    """Return the milliseconds at each count from 0 to the largest, in rising order."""
    counts, ms = measured.double().numpy().T
    return np.interp(np.arange(int(counts[-1]) + 1), counts, np.maximum.accumulate(ms))


def measure_latency_table(model: PreTrainedModel) -> LatencyTable:
    """Measure on this machine what heads and neurons of a model cost: half a minute for one of 6 x 384.

    Encoders of its family, depth and widths with random weights, without a head, are exported and run in ONNX Runtime:
    fp32, one thread, a batch of one text. They take turns, so that a change of the machine's speed meets all of them.

    Args:
        model: The model; it may have lost heads and neurons already. It stays as it is, and so do random numbers.

    Returns:
        The table of its blocks.
    """
    config = _config_to_measure(model.config)
    full, by_heads, by_neurons = _shapes(config)
    shapes = sorted({*by_heads, *by_neurons})
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        runners = {}
        for shape in tqdm(shapes, desc="Latency table: graphs", unit="graph"):
            path = Path(folder) / "onnx" / f"{shape[0]}-{shape[1]}.onnx"
            write_graph(encoder_of_shape(config, *shape), path)
            runners[shape] = OnnxRunner(path, threads=1)
        inputs = dict.fromkeys(shapes, [_inputs(config)] * _PASSES)
        times = measure_latency(runners, inputs, _ROUNDS, "Latency table: passes")
    ms = {shape: float(np.median(values)) for shape, values in times.items()}
    logger.info("latency table, (heads, neurons) and ms: %s", {shape: round(value, 4) for shape, value in ms.items()})
    return LatencyTable(
        _rows([(heads, ms[heads, full[1]]) for heads, _ in by_heads]),
        _rows([(neurons, ms[full[0], neurons]) for _, neurons in by_neurons]),
        _calls(model),
    )


def _config_to_measure(config: PretrainedConfig) -> PretrainedConfig:
    config = unpruned(config)
    config.vocab_size, config.pad_token_id = min(config.vocab_size, _VOCABULARY), 0
    return config


Counts = tuple[int, int]
"""Heads and neurons of each layer."""


def _shapes(config: PretrainedConfig) -> tuple[Counts, list[Counts], list[Counts]]:
    """Return the full shape, those with fewer heads and those with fewer neurons, the full one last in both."""
    _, _, heads, neurons = shape_of(config)
    some_heads, some_neurons = _some(heads, 1), _some(neurons, group_size(neurons))
    return (heads, neurons), [(count, neurons) for count in some_heads], [(heads, count) for count in some_neurons]


def _some(full: int, step: int) -> list[int]:
    return sorted({max(step, step * round(share * full / step)) for share in _SHARES})


def encoder_of_shape(config: PretrainedConfig, heads: int, neurons: int) -> PreTrainedModel:
    """Build an encoder without a head, with random weights and as many heads and neurons in each layer.

    Args:
        config: The configuration of a model that has more of both.
        heads: Heads of a layer.
        neurons: Feed-forward neurons of a layer.

    Returns:
        The encoder, float32, in evaluation mode.
    """
    # A copy: the shape is written into it.
    model = AutoModel.from_config(copy.deepcopy(config), attn_implementation="eager", dtype=torch.float32).eval()
    blocks = len(Encoder(model).blocks)
    remove(model, Selection([range(heads)] * blocks, [range(neurons)] * blocks))
    return model


def _inputs(config: PretrainedConfig) -> dict[str, NDArray[np.int64]]:
    length = min(LENGTH, config.max_position_embeddings - first_position(config))
    ids = np.arange(2, 2 + length)[None] % config.vocab_size
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _calls(model: PreTrainedModel) -> Tensor:
    encoder = Encoder(model)
    calls = Counter(id(layer.module) for layer in encoder.layers)
    return torch.tensor([calls[id(block.module)] for block in encoder.blocks])


def _rows(rows: Sequence[tuple[int, float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
