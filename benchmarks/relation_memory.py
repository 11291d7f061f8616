"""What the MiniLMv2 loss alone needs, beside the same loss by autograd over whole relation maps.

    python benchmarks/relation_memory.py [--threads 2] [--batch 4] [--length 512] [--repeats 5] [--output FILE]

Forward and backward from given projections: a teacher of BERT-large's width 1024, a student of 768, 64 relation heads
of qq, kk and vv, fp32, no padding. Peak memory is each one's own, in a process of its own: Linux's VmHWM, reset when
the projections are made and a small loss has loaded what the loss needs, less the memory held at that moment. Times are
medians, in turns in one process.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from common import in_turns, write_json
from torch import Tensor

from edgemin_hf import minilmv2_loss

HEADS = 64
WIDTHS = {"student": 768, "teacher": 1024}
Side = dict[str, Tensor]


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = (options.batch, options.length)
    student, teacher = projections(*shape)
    values = {name: loss(student, teacher).item() for name, loss in LOSSES.items()}
    if abs(values["edgemin_hf"] / values["whole maps"] - 1) > 1e-5:
        raise SystemExit(f"{values}; allowed: losses that differ by 1e-5 of their size at most")
    seconds = in_turns([lambda f=loss: f(student, teacher).backward() for loss in LOSSES.values()], options.repeats)
    rows = []
    case = f"{options.batch} x {options.length}"
    print(f"{case:<14}{'loss':>12}{'peak (MB)':>12}{'of whole':>10}{'seconds':>10}{'of whole':>10}")
    for name, time in zip(LOSSES, seconds, strict=True):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(peak_mb, name, *shape, options.threads).result()
        first = rows[0] if rows else {"peak_mb": peak, "seconds": time}
        rows.append({"loss": name, "value": values[name], "peak_mb": peak, "seconds": time})
        shares = (peak / first["peak_mb"], time / first["seconds"])
        print(
            f"{name:<14}{values[name]:>12.6f}{peak:>12.0f}{shares[0]:>10.3f}{time:>10.3f}{shares[1]:>10.3f}", flush=True
        )
    settings = {"threads": options.threads, "batch": options.batch, "length": options.length, "heads": HEADS, **WIDTHS}
    write_json(options.output, {**settings, "rows": rows})


def projections(batch: int, length: int) -> tuple[Side, Side]:
    """Make random projections of a student, which want gradients, and of a teacher."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        {name: torch.randn(batch, length, width, generator=generator) for name in "qkv"} for width in WIDTHS.values()
    )
    return {name: tensor.requires_grad_() for name, tensor in student.items()}, teacher


def chunked(student: Side, teacher: Side) -> Tensor:
    """Compute the loss as edgemin_hf does."""
    mask = torch.ones(student["q"].shape[:2], dtype=torch.long, device=student["q"].device)
    return minilmv2_loss(student, teacher, mask, HEADS)


def whole_maps(student: Side, teacher: Side) -> Tensor:
    """Compute the loss as the paper writes it, by operations on all relation maps of all heads at once."""
    losses = []
    for name in "qkv":
        target = relation(teacher[name]).softmax(dim=-1)
        kl = F.kl_div(relation(student[name]).log_softmax(dim=-1), target, reduction="sum")
        losses.append(kl / target[..., 0].numel())
    return torch.stack(losses).sum()


def relation(projection: Tensor) -> Tensor:
    """Return the scaled products of all tokens (batch, heads, length, length)."""
    heads = projection.unflatten(-1, (HEADS, -1)).transpose(1, 2)
    return heads @ heads.transpose(-1, -2) / heads.shape[-1] ** 0.5


LOSSES: dict[str, Callable[[Side, Side], Tensor]] = {"whole maps": whole_maps, "edgemin_hf": chunked}


def peak_mb(name: str, batch: int, length: int, threads: int) -> float:
    """Return what this process holds at most in one forward and backward, less what it held before (10^6 bytes)."""
    torch.set_num_threads(threads)
    LOSSES[name](*projections(1, 8)).backward()
    student, teacher = projections(batch, length)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mb("VmRSS")
    LOSSES[name](student, teacher).backward()
    return status_mb("VmHWM") - before


def status_mb(key: str) -> float:
    """Read a number of /proc/self/status, which counts in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024 / 1e6


if __name__ == "__main__":
    main()
