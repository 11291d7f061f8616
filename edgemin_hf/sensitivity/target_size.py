"""Which modules of an INT8 model become INT4, so that its graph is at most so large and loses least?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from edgemin_hf.quantization.config import QuantizationConfig
from edgemin_hf.quantization.precision import names_to_choose, precisions
from edgemin_hf.sensitivity.quantization import PRECISIONS, ModuleSensitivity, Precision, module_bytes


class _Step(NamedTuple):
    """What it costs and saves to store a module in INT4 and not in INT8."""

    name: str
    loss: float
    saved: int


def meet_size(modules: Sequence[ModuleSensitivity], int8_bytes: int, target_mb: float) -> dict[str, Precision]:
    """Choose INT8 or INT4 for each module by their losses, which are taken to add up.

    Greedily: from all in INT8, the module that adds least loss for each byte that it saves becomes INT4, until the
    graph is small enough; then those that were not needed after all go back, the largest loss first. Where all of them
    are not enough, all are INT4.

    Args:
        modules: The modules that there is a choice for, each at each precision that it can have, in any order.
        int8_bytes: Size of the graph in which all of them are INT8.
        target_mb: Largest size allowed, in MB of 10^6 bytes.

    Returns:
        The precision of each module.

    Example:
        >>> import torch
        >>> from edgemin_hf.sensitivity import ModuleSensitivity, meet_size
        >>> def row(name, precision, loss, size):
        ...     return ModuleSensitivity(name, "linear", precision, loss, size, {}, torch.zeros(0))
        >>> rows = [row("a", "int8", 0.0, 1000), row("a", "int4", 0.1, 600)]
        >>> rows += [row("b", "int8", 0.0, 1000), row("b", "int4", 0.9, 600)]
        >>> meet_size(rows, int8_bytes=2000, target_mb=0.0018)
        {'a': 'int4', 'b': 'int8'}
    """
    of = {(row.name, row.precision): row for row in modules}
    names = sorted({row.name for row in modules})
    pairs = [(of[name, "int8"], of[name, "int4"]) for name in names if (name, "int4") in of]
    steps = [_Step(int8.name, int4.loss - int8.loss, int8.size_bytes - int4.size_bytes) for int8, int4 in pairs]
    steps = sorted((step for step in steps if step.saved > 0), key=lambda step: (step.loss / step.saved, step.name))
    target, size, taken = round(1e6 * target_mb), int8_bytes, list[_Step]()
    for step in steps:
        if size > target:
            size -= step.saved
            taken.append(step)
    for step in sorted(taken, key=lambda step: (-step.loss, step.name)):
        if step.loss > 0 and size + step.saved <= target:
            size += step.saved
            taken.remove(step)
    lowered = {step.name for step in taken}
    return {name: "int4" if name in lowered else "int8" for name in names}


def least_bytes(model: PreTrainedModel, config: QuantizationConfig) -> int:
    """Bound a model's graph from below, whatever is chosen: the bytes of weights and scales alone.

    Args:
        model: The model, which may be on the meta device.
        config: The settings; what `overrides` name is fixed.

    Returns:
        The bytes.
    """
    free = names_to_choose(model, config)
    names = {module: name for name, module in model.named_modules()}
    found = 0
    for module, precision in precisions(model, config).items():
        allowed = PRECISIONS if names[module] in free else (precision,)
        found += min(module_bytes(module, one, config.group_size) for one in allowed)
    return found
