"""What the MiniLMv2 loss costs: a training step against its bound, the same step without any loss; and the loss alone.

    python benchmarks/relation_loss.py [--threads 2] [--steps 8] [--output FILE]

The bound is the teacher's forward pass to the compared layer's projections, and the student's forward and backward to
its own last ones, with a mean of squares instead of the loss. The loss alone is its forward and backward from
given projections. All three are timed in turns in one run, in fp32.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from common import CASES, RELATION_HEADS, TEACHER_LAYER, in_turns, inputs_of, recorded, teacher_and_student, write_json
from torch import Tensor

from edgemin_hf import MiniLMv2Config
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.hooks import Recording


def main() -> None:
    """Time all cases and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher, student = teacher_and_student()
    config = MiniLMv2Config(teacher_layer=TEACHER_LAYER, relation_heads=RELATION_HEADS)
    objective = config.objective(Encoder(student), Encoder(teacher))

    def both(inputs: dict[str, Tensor]) -> tuple[Recording, Recording]:
        with torch.no_grad():
            theirs = recorded(teacher, objective.teacher_activations, inputs)
        return recorded(student, objective.student_activations, inputs), theirs

    def loss(ours: Recording, theirs: Recording, inputs: dict[str, Tensor]) -> None:
        torch.stack(list(objective(ours, theirs, inputs).values())).sum().backward()
        student.zero_grad()

    def bound(ours: Recording) -> None:
        torch.stack([tensor.square().mean() for tensor in ours.activations.values()]).sum().backward()
        student.zero_grad()

    rows = []
    print(f"{'batch x length':<16}{'step (s)':>10}{'bound (s)':>11}{'ratio':>8}{'loss alone (s)':>16}")
    for name, lengths in CASES.items():
        inputs = inputs_of(lengths)
        given, theirs = both(inputs)
        given.activations = {
            activation: tensor.detach().requires_grad_() for activation, tensor in given.activations.items()
        }
        step_s, bound_s, loss_s = in_turns(
            [
                lambda i=inputs: loss(*both(i), i),
                lambda i=inputs: bound(both(i)[0]),
                lambda i=inputs, g=given, t=theirs: loss(g, t, i),
            ],
            options.steps,
        )
        row = {"case": name, "step_s": step_s, "bound_s": bound_s, "ratio": step_s / bound_s, "loss_s": loss_s}
        rows.append(row)
        print(f"{name:<16}{step_s:>10.3f}{bound_s:>11.3f}{row['ratio']:>8.3f}{loss_s:>16.3f}", flush=True)
    write_json(options.output, {"threads": options.threads, "rows": rows})


if __name__ == "__main__":
    main()
