"""What the MiniLMv2 loss costs: a training step against its bound, the same step without any loss.

    python benchmarks/relation_loss.py [--threads 2] [--steps 8] [--output FILE]

The bound is the teacher's forward pass to the compared layer's projections, and the student's forward and backward to
its own last ones, with a mean of squares in the place of the loss. Both are timed in turns in one run, in fp32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from edgemin_hf import MiniLMv2Config
from edgemin_hf.distillation.capture import record
from edgemin_hf.encoder import Encoder

CASES = {"16 x 128": [128] * 16, "4 x 512": [512] * 4, "16 of 10..128": [10 + round(118 * i / 15) for i in range(16)]}


def inputs_of(lengths: list[int]) -> dict[str, Tensor]:
    """Builds random token ids of these lengths, padded on the right."""
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(1000, 30000, mask.shape) * mask, "attention_mask": mask}


def main() -> None:
    """Times all cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    teacher = BertModel(BertConfig()).eval().requires_grad_(False)
    student = BertModel(
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    )
    objective = MiniLMv2Config(teacher_layer=12, relation_heads=48).objective(Encoder(student), Encoder(teacher))

    def step(inputs: dict[str, Tensor], with_loss: bool) -> None:
        with torch.no_grad():
            theirs = record(teacher, objective.teacher_taps, logits=False, inputs=inputs)
        ours = record(student, objective.student_taps, logits=False, inputs=inputs)
        if with_loss:
            loss = torch.stack(list(objective(ours, theirs, inputs).values())).sum()
        else:
            loss = torch.stack([tensor.square().mean() for tensor in ours.taps.values()]).sum()
        loss.backward()
        student.zero_grad()

    rows = []
    print(f"{'batch x length':<16}{'step (s)':>10}{'bound (s)':>11}{'ratio':>8}")
    for name, lengths in CASES.items():
        inputs = inputs_of(lengths)
        loss_step, bound = in_turns([lambda i=inputs: step(i, True), lambda i=inputs: step(i, False)], options.steps)
        rows.append({"case": name, "step_s": loss_step, "bound_s": bound, "ratio": loss_step / bound})
        print(f"{name:<16}{loss_step:>10.3f}{bound:>11.3f}{loss_step / bound:>8.3f}", flush=True)
    if options.output:
        options.output.write_text(json.dumps({"threads": options.threads, "rows": rows}, indent=2) + "\n")


def in_turns(functions: list[Callable[[], None]], repeats: int) -> list[float]:
    """Returns the median seconds of each function; they take turns, after a round that is not counted."""
    times: list[list[float]] = [[] for _ in functions]
    for round_number in range(repeats + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_number:
                kept.append(time.perf_counter() - start)
    return [statistics.median(kept) for kept in times]


if __name__ == "__main__":
    main()
