"""What quantising each module of a model alone costs: nothing is trained.

One linear layer or one table at a time computes on its grid, all else in full precision, and its loss is how far the
predictions move: the mean KL divergence from those of the unquantised model (Cai et al. 2020, ZeroQ, arXiv 2001.00281,
equation 5), or for a regression the mean squared difference. That is 0 where nothing changes and never negative, and
every row adds to it, also where no prediction turns; the change of the labels' loss is a difference of two noisy means
that may have either sign. It grows with the square of a small error, so that losses of several modules about add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Inputs, PartialForward, hooked
from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.int4 import FakeInt4Linear
from edgemin_hf.quantization.integer import quantized_weights
from edgemin_hf.quantization.native import FakeQuantEmbedding, FakeQuantLinear, linear_integers
from edgemin_hf.quantization.precision import precisions
from edgemin_hf.sensitivity.kept import Kept
from edgemin_hf.sensitivity.outputs import Batch, divergence, inputs_of, kept_of, logits_of, rows_of
from edgemin_hf.tasks.base import Outputs, Task
from edgemin_hf.tasks.known import task_of

Precision = Literal["int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_UNQUANTIZED = "unquantized"


@dataclass(frozen=True)
class ModuleSensitivity:
    """What one module alone costs at one precision.

    Attributes:
        name: The module's name in the model.
        kind: A linear layer, or a table of embeddings.
        precision: "int8" or "int4", as `QuantizationConfig` has them.
        loss: Mean KL divergence of the predictions from the unquantised model's, in nats; for a regression the mean
            squared difference of the scores.
        size_bytes: Bytes of its weights and their scales at this precision.
        saved_bytes: How many bytes fewer that is than at each other precision, "fp32" among them.
        logits: What the task keeps of what the model then gives, float32: (rows, width), or (length, width) for each
            row.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.sensitivity import ModuleSensitivity
        >>> cost = {"loss": 1e-4, "size_bytes": 1024, "saved_bytes": {"fp32": 3072}, "logits": np.zeros((8, 2))}
        >>> ModuleSensitivity("classifier", kind="linear", precision="int8", **cost).saved_bytes["fp32"]
        3072
    """

    name: str
    kind: Literal["linear", "embedding"]
    precision: Precision
    loss: float
    size_bytes: int
    saved_bytes: dict[str, int]
    logits: Outputs = field(repr=False, compare=False)


class QuantizationSensitivity(NamedTuple):
    """What `quantization_sensitivity` measured.

    Attributes:
        logits: The same of the unquantised model, float32: (rows, width), or (length, width) for each row.
        modules: Each module at each precision that it can be stored in, the largest loss first.

    Example:
        >>> import numpy as np
        >>> from edgemin_hf.sensitivity import QuantizationSensitivity
        >>> QuantizationSensitivity(logits=np.zeros((8, 2)), modules=[]).logits.shape
        (8, 2)
    """

    logits: Outputs
    modules: list[ModuleSensitivity]


class _Candidate(NamedTuple):
    """A module, what takes its place, and the first layer that its output changes."""

    name: str
    parent: nn.Module
    child: str
    precision: Precision
    quantized: nn.Module
    start: int
    sizes: dict[str, int]


@torch.inference_mode()
def quantization_sensitivity(
    model: PreTrainedModel,
    calibration: Sequence[Batch],
    batches: Sequence[Batch],
    config: QuantizationConfig | None = None,
    kept: Kept | None = None,
) -> QuantizationSensitivity:
    """Measure what quantising each linear layer and each table of words or positions alone costs.

    The layers below a module are not run again: they give back what they gave in the unquantised model's pass.

    Args:
        model: A classifier or regressor in full precision; it stays as it is, and is in evaluation mode meanwhile.
        calibration: Batches of its inputs that the INT8 layers' input ranges are taken from.
        batches: Batches that are measured, likewise, with `counted` where the task is ragged, and with labels where
            that keeps little of what the model gives. Their sizes and padding change nothing.
        config: The settings of the grids; None takes the defaults. Which precision it asks for does not matter.
        kept: Keeps the logits, and knows what was measured before; None keeps nothing.

    Returns:
        The losses.

    Raises:
        ValueError: If the model is quantised already.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from edgemin_hf.sensitivity import quantization_sensitivity
        >>> shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=50, **shape)).eval()
        >>> batch = {"input_ids": torch.tensor([[2, 7, 8, 3]])}
        >>> found = quantization_sensitivity(model, [batch], [batch])
        >>> {"classifier", "bert.pooler.dense"} <= {row.name for row in found.modules}
        True
    """
    if quantized_weights(model) is not None:
        raise ValueError(f"model: a quantised {type(model).__name__}; allowed: a model in full precision")
    was_training = model.training
    model.eval()
    try:
        candidates = _candidates(model, calibration, config or QuantizationConfig())
        task = task_of(model)
        parts = _outputs(model, task, candidates, batches, kept)
    finally:
        model.train(was_training)
    count = sum(len(batch["input_ids"]) for batch in batches)
    unquantized, *changed = (
        rows_of([part[name] for part in parts], batches) for name in (_UNQUANTIZED, *map(str, range(len(candidates))))
    )
    losses = [sum(float(part[f"loss {number}"][0]) for part in parts) / count for number in range(len(candidates))]
    rows = [_row(*found) for found in zip(candidates, changed, losses, strict=True)]
    return QuantizationSensitivity(unquantized, sorted(rows, key=lambda row: (-row.loss, row.name, row.precision)))


def _outputs(
    model: PreTrainedModel,
    task: type[Task],
    candidates: Sequence[_Candidate],
    batches: Sequence[Batch],
    kept: Kept | None,
) -> list[Mapping[str, NDArray[np.generic]]]:
    """Return what is kept for each batch: unquantised, and by each candidate's number with it put in, and its loss."""
    layers = PartialForward(model)
    parts: list[Mapping[str, NDArray[np.generic]]] = []
    with tqdm(total=len(batches) * len(candidates), desc="Quantisation sensitivity", unit="pass") as bar:

        def measured(batch: Batch) -> dict[str, NDArray[np.generic]]:
            inputs = inputs_of(model, batch)
            output, hidden = layers.observe(partial(logits_of, model, batch))
            found: dict[str, NDArray[np.generic]] = {_UNQUANTIZED: kept_of(task, output, batch)}
            for number, candidate in enumerate(candidates):
                start = candidate.start
                with _swapped(candidate):
                    logits = layers.run(inputs, hidden[start], start, layers.depth + 1)
                found[str(number)] = kept_of(task, logits.float(), batch)
                found[f"loss {number}"] = np.array([divergence(task, logits, output, batch)])
                bar.update()
            return found

        for number, batch in enumerate(batches):
            one = partial(measured, batch)
            parts.append(one() if kept is None else kept.take(f"costs-{number}", one))
            bar.update(max(0, (number + 1) * len(candidates) - bar.n))
    return parts


def module_bytes(module: nn.Linear | nn.Embedding, precision: Literal["int8", "int4", "fp32"], group_size: int) -> int:
    """Compute the bytes of a module's weights and scales in an exported graph; its bias is not among them.

    Args:
        module: A linear layer or a table, quantised or not.
        precision: Its precision.
        group_size: Number of INT4 weights that share a scale.

    Returns:
        4 bytes a weight; or of INT8 1 a weight and 4 a row, for the scale (of a linear layer 5, with its zero point);
        or of INT4 half a byte a weight and 4 a group. Linear layers fill up the last group of a row.
    """
    rows: int
    width: int
    rows, width = module.weight.shape
    linear = isinstance(module, nn.Linear)
    if precision == "fp32":
        return 4 * rows * width
    if precision == "int8":
        return rows * (width + 4 + linear)
    groups = -(-width // group_size)
    return rows * ((groups * group_size if linear else width) // 2 + 4 * groups)


def _candidates(model: PreTrainedModel, calibration: Sequence[Batch], config: QuantizationConfig) -> list[_Candidate]:
    encoder, group_size = Encoder(model), config.group_size
    names = {module: name for name, module in model.named_modules()}
    starts, quantizable = _first_layers(encoder), precisions(model, QuantizationConfig())
    with_ranges = _calibrated(model, [linear for _, _, linear in encoder.linears()], calibration)
    integers = linear_integers(config.reduce_range)
    decoded = {id(linear.weight) for linear in with_ranges}
    candidates = []
    for parent, child, module in (*encoder.embeddings(), *encoder.linears()):
        forms: dict[Precision, nn.Module] = {}
        if isinstance(module, nn.Linear):
            forms = {"int8": with_ranges[module], "int4": FakeInt4Linear(module, group_size)}
            with_ranges[module].weight_integers = integers
        elif module in quantizable:
            rows = FakeQuantEmbedding(module)
            if id(module.weight) in decoded:  # tied to a decoder, it is stored once, on the decoder's grid
                rows.weight_integers = integers
            forms["int8"] = rows
            if module.embedding_dim % 2 == 0:  # others can't be packed
                forms["int4"] = FakeQuantEmbedding(module, group_size)
        sizes = {"fp32": module_bytes(module, "fp32", group_size)}
        sizes |= {precision: module_bytes(module, precision, group_size) for precision in forms}
        place, start = (names[module], parent, child), starts.get(module, 0)
        candidates += [_Candidate(*place, precision, form.eval(), start, sizes) for precision, form in forms.items()]
    return candidates


def _first_layers(encoder: Encoder) -> dict[nn.Module, int]:
    """Return the layer that each module is in, the depth for the head's; the embeddings' are left out."""
    depth, base = encoder.config.num_hidden_layers, encoder.base
    shared = encoder.shares_layers
    heads = [getattr(base, "pooler", None), *(part for part in encoder.model.children() if part is not base)]
    starts = {module: depth for head in heads if head is not None for module in head.modules()}
    for number, layer in enumerate(encoder.layers):
        # Shared layers run from the beginning, whichever of them it is.
        starts.update(dict.fromkeys(layer.module.modules(), 0 if shared else number))
    return starts


def _calibrated(
    model: PreTrainedModel, linears: Sequence[nn.Linear], batches: Sequence[Batch]
) -> dict[nn.Module, FakeQuantLinear]:
    """Return an INT8 form of each layer whose input range holds what the unquantised model brings it."""
    forms: dict[nn.Module, FakeQuantLinear] = {linear: FakeQuantLinear(linear, momentum=0.0) for linear in linears}

    def widen(linear: nn.Module, args: Inputs) -> None:
        forms[linear].widen_range(args[0])

    with hooked(before=[(linear, widen) for linear in linears]):
        for batch in batches:
            model(**inputs_of(model, batch))
    return forms


@contextmanager
def _swapped(candidate: _Candidate) -> Iterator[None]:
    before = getattr(candidate.parent, candidate.child)
    setattr(candidate.parent, candidate.child, candidate.quantized)
    try:
        yield
    finally:
        setattr(candidate.parent, candidate.child, before)


def _row(candidate: _Candidate, outputs: Outputs, loss: float) -> ModuleSensitivity:
    size = candidate.sizes[candidate.precision]
    return ModuleSensitivity(
        name=candidate.name,
        kind="embedding" if isinstance(candidate.quantized, nn.Embedding) else "linear",
        precision=candidate.precision,
        loss=loss,
        size_bytes=size,
        saved_bytes={other: of - size for other, of in candidate.sizes.items() if other != candidate.precision},
        logits=outputs,
    )
