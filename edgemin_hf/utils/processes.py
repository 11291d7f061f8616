"""What all processes of a training must agree on: sums over all of them, the first one's tensors, and a check.

Where a process group is there, all its processes must call these functions; with one process they change nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, pad_across_processes, reduce
from torch import Tensor
from torch import distributed as dist

from edgemin_hf.utils.batches import count_rows

Value = TypeVar("Value")


def several_processes() -> bool:
    """Return whether a process group of several processes is there."""
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, on the tensor's device."""
    if not several_processes():
        return tensor
    total: Tensor = reduce(tensor.to(PartialState().device), "sum")
    return total.to(tensor.device)


def joined(rows: Tensor) -> Tensor:
    """Return the rows of all processes one below the other: (any number, ...) each, on the tensor's device.

    A process with fewer rows than another adds rows of zeros.
    """
    if not several_processes():
        return rows
    padded = pad_across_processes(rows.to(PartialState().device), dim=0)
    every: Tensor = gather(padded)
    return every.to(rows.device)


def own_share(batches: Iterable[Mapping[str, Tensor]], examples: int) -> Iterator[Mapping[str, Tensor]]:
    """Yield, of a loader that deals batches out to all processes in turn, so many examples over all of them.

    Args:
        batches: This process's batches, with examples along the first dimension of each tensor.
        examples: How many there are to be in all; a batch is cut where that is reached, and no more is read.
    """
    several = several_processes()
    count, rank = (PartialState().num_processes, PartialState().process_index) if several else (1, 0)
    start = 0
    for batch in batches:
        size = count_rows(batch)
        left = examples - start - rank * size
        if left > 0:
            yield batch if left >= size else {name: rows[:left] for name, rows in batch.items()}
        start += count * size
        if start >= examples:
            return


def of_first(value: Value) -> Value:
    """Return what the first process holds, to all of them."""
    if not several_processes():
        return value
    found: Value = broadcast_object_list([value])[0]
    return found


def check_same(name: str, value: object) -> None:
    """Check that all processes hold the same value.

    Args:
        name: What it is, for the message.
        value: What JSON can hold.

    Raises:
        RuntimeError: If they do not; all processes raise it.
    """
    if not several_processes():
        return
    digests = gather_object([hashlib.sha256(json.dumps(value).encode()).hexdigest()])
    if len(set(digests)) > 1:
        others = ", ".join(str(rank) for rank, digest in enumerate(digests) if digest != digests[0])
        raise RuntimeError(f"{name}: not the same in all processes ({others} differ from 0); expected the same in all")


@torch.no_grad()
def share_from_first(name: str, modules: Iterable[torch.nn.Module]) -> None:
    """Give all processes the first one's parameters and buffers, as DistributedDataParallel will when it wraps them.

    Args:
        name: What they are, for the message.
        modules: Modules of the same structure in all processes.

    Raises:
        RuntimeError: If their structure differs.
    """
    if not several_processes():
        return
    tensors = [pair for module in modules for pair in (*module.named_parameters(), *module.named_buffers())]
    check_same(name, [[key, list(tensor.shape)] for key, tensor in tensors])
    for _, tensor in tensors:
        if prod(tensor.shape):
            first = tensor.detach().to(PartialState().device, copy=True).contiguous()
            dist.broadcast(first, src=0)
            tensor.copy_(first)
