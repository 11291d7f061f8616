"""One MiniLMv2 training step of edgemin_hf against bertdistiller 0.1.2 (PyPI), on CPU.

    pip install --no-deps --target peer bertdistiller==0.1.2
    python benchmarks/minilmv2_peer.py --peer peer [--threads 2] [--steps 4] [--texts 256 48] [--output FILE]

`--no-deps` because its requirements clash with constraints.txt, while what a training step imports does not. Both are a
`transformers.Trainer`; what is timed is `compute_loss`, backward and a step of AdamW (fused), in turns in one run. Both
train the same student (6 x 384, 12 heads, random weights, dropout on) of the same frozen teacher (BERT-base's shape,
layer 12, random weights), with 48 relation heads of qq, kk and vv. First, and apart from the times, both losses are
compared in fp32 without dropout, with attention weights six times as large, so that relations are far from uniform.

**Like for like**: the same padded batches of random ids, in fp32. Medians of --steps. What each leaves out of the work
is its own: bertdistiller runs both models to their ends, on all padding; edgemin_hf ends at the layers compared, and
divides a batch of mixed lengths into passes of like lengths.

**All told**: a pass over the same texts, as each is meant to be used. Tokens are those of the texts alone: neither
padding nor [CLS] and [SEP] count. Two sets of texts, batches of 16 and of 4:

- sentences: --texts[0] of 10 to 128 tokens, uniformly at random;
- documents: --texts[1] whose tokens are log-normal (mean 250, sigma 0.75), cut to 10 to 512.

bertdistiller takes texts in random order, pads to the longest of a batch and computes in fp32: the README's example,
with Trainer's defaults. As a `Trainer` it can also be told to compute in bf16 and to group by length, here with
edgemin_hf's own batches; "with our settings" is that. edgemin_hf takes `LengthGroupedBatches`, and bf16 autocast where
the processor computes in it (AVX512-BF16, AMX). For documents it may also take the blocks of `TokenBlocks`, as recipes
on raw text do: the same texts in one stream with a separator between two, cut into blocks of 512 without padding. That
is other training: a block's attention and relations run across documents.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CASES, RELATION_HEADS, TEACHER_LAYER, in_turns, inputs_of, teacher_and_student, timed, write_json
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from edgemin_hf import DistillationTrainer, MiniLMv2Config
from edgemin_hf.data.batches import LengthGroupedBatches
from edgemin_hf.utils.hardware import cpu_flags, environment

TOLERANCE = 1e-5


def main() -> None:
    """Compare losses, then times, and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder that bertdistiller was installed into")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--texts", type=int, nargs=2, default=[256, 48], help="number of sentences and of documents")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    teacher, student = teacher_and_student()
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = our_trainer(teacher, student, folder), peer_trainer(options.peer, teacher, student, folder)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)

    def step(trainer: Trainer, inputs: dict[str, Tensor], bf16: bool = False) -> None:
        student.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = trainer.compute_loss(student, dict(inputs))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    print(f"{'loss, fp32':<16}{'edgemin_hf':>12}{'peer':>12}{'difference':>12}{'of gradient':>12}")
    losses = [compare_losses(name, ours, theirs, teacher, student) for name in CASES]
    print(f"\n{'like for like':<16}{'edgemin_hf':>12}{'peer':>12}{'faster':>12}   seconds a step, fp32")
    like_for_like = []
    for name, lengths in CASES.items():
        inputs = inputs_of(lengths)
        our_s, peer_s = in_turns([lambda i=inputs: step(ours, i), lambda i=inputs: step(theirs, i)], options.steps)
        like_for_like.append({"case": name, "edgemin_s": our_s, "peer_s": peer_s, "faster": peer_s / our_s})
        print(f"{name:<16}{our_s:>12.3f}{peer_s:>12.3f}{peer_s / our_s:>11.2f}x", flush=True)
    bf16 = bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})
    all_told = []
    for name, lengths, batch_size in texts(*options.texts):
        all_told += pass_over(name, runs_of(ours, theirs, lengths, batch_size, bf16), step)
    peer = f"bertdistiller {version('bertdistiller')}"
    rows = {"losses": losses, "like_for_like": like_for_like, "all_told": all_told}
    write_json(options.output, {"environment": environment(options.threads).to_dict(), "peer": peer, **rows})


def our_trainer(teacher: PreTrainedModel, student: PreTrainedModel, folder: str) -> Trainer:
    """Build edgemin_hf's trainer."""
    config = MiniLMv2Config(teacher_layer=TEACHER_LAYER, relation_heads=RELATION_HEADS)
    arguments = TrainingArguments(folder, use_cpu=True, report_to=[])
    return DistillationTrainer(student, teacher, arguments, distillation_config=config)


def peer_trainer(peer: Path, teacher: PreTrainedModel, student: PreTrainedModel, folder: str) -> Trainer:
    """Import bertdistiller from a folder and build its trainer.

    Raises:
        SystemExit: If it can't be imported from there.
    """
    # After all else, so that whatever came into the folder beside it takes no other package's place.
    sys.path.append(str(peer.resolve()))
    try:
        package: Any = importlib.import_module("bertdistiller")
    except ImportError as error:
        raise SystemExit(
            f"--peer: {peer} ({error}); allowed: FOLDER of pip install --no-deps --target FOLDER bertdistiller==0.1.2"
        ) from None
    shape = {"student_layer": 6, "student_hidden_size": 384, "student_attention_heads": 12}
    arguments = package.MiniLMTrainingArguments(
        folder, use_cpu=True, report_to=[], teacher_layer=TEACHER_LAYER, num_relation_heads=RELATION_HEADS, **shape
    )
    return package.MiniLMTrainer(model=student, args=arguments, teacher_model=teacher)


def compare_losses(
    name: str, ours: Trainer, theirs: Trainer, teacher: PreTrainedModel, student: PreTrainedModel
) -> dict[str, Any]:
    """Compute both losses and gradients on one batch, in fp32 and without dropout.

    Raises:
        SystemExit: If the losses differ by more than `TOLERANCE` of their size.
    """
    inputs = inputs_of(CASES[name])
    values, gradients = [], []
    student.eval()
    with peaked_relations([teacher, student]):
        for trainer in (ours, theirs):
            loss = trainer.compute_loss(student, dict(inputs))
            loss.backward()
            values.append(loss.item())
            found = [parameter.grad.flatten() for parameter in student.parameters() if parameter.grad is not None]
            gradients.append(torch.cat(found))
            student.zero_grad()
    difference = abs(values[0] / values[1] - 1)
    of_gradient = ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()
    print(f"{name:<16}{values[0]:>12.6f}{values[1]:>12.6f}{difference:>12.1e}{of_gradient:>12.1e}", flush=True)
    if difference > TOLERANCE:
        raise SystemExit(f"{name}: the losses differ by {difference:.1e}; allowed: {TOLERANCE:.0e}")
    return {"case": name, "edgemin": values[0], "peer": values[1], "difference": difference, "gradient": of_gradient}


@contextmanager
def peaked_relations(models: Sequence[PreTrainedModel], factor: float = 6.0) -> Iterator[None]:
    """Make attention weights larger for a while: relations of freshly made models are almost uniform."""
    parameters = [
        parameter
        for model in models
        for name, parameter in model.named_parameters()
        if "attention.self" in name and name.endswith("weight")
    ]
    for scale in (factor, 1 / factor):
        with torch.no_grad():
            for parameter in parameters:
                parameter.mul_(scale)
        if scale == factor:
            yield


def texts(sentences: int, documents: int) -> list[tuple[str, np.ndarray, int]]:
    """Draw the lengths of the texts in tokens, [CLS] and [SEP] included; return name, lengths and batch size."""
    generator = np.random.default_rng(0)
    sigma = 0.75
    tokens = generator.lognormal(np.log(250) - sigma**2 / 2, sigma, documents)
    return [
        ("sentences", generator.integers(10, 128, sentences, endpoint=True), 16),
        ("documents", tokens.clip(10, 512).astype(int), 4),
    ]


@dataclass
class Run:
    """A pass over texts by one trainer.

    Attributes:
        who: Whose trainer, in words.
        trainer: It.
        order: How the texts are batched, in words.
        batches: Lengths of the examples of each batch.
        tokens: Tokens of text in them.
        bf16: Whether to compute under autocast.
        times: Seconds of each step so far.
    """

    who: str
    trainer: Trainer
    order: str
    batches: list[list[int]]
    tokens: int
    bf16: bool
    times: list[float] = field(default_factory=list)


def runs_of(ours: Trainer, theirs: Trainer, lengths: np.ndarray, batch_size: int, bf16: bool) -> list[Run]:
    """List what takes part: the peer as it comes first."""
    tokens = int(lengths.sum()) - 2 * len(lengths)
    shuffled = batches(lengths[np.random.default_rng(1).permutation(len(lengths))], batch_size)
    grouped = batches(lengths[list(LengthGroupedBatches(lengths, batch_size, seed=0))], batch_size)
    runs = [
        Run("peer", theirs, "random", shuffled, tokens, False),
        Run("peer, our settings", theirs, "grouped", grouped, tokens, bf16),
        Run("edgemin_hf", ours, "grouped", grouped, tokens, bf16),
    ]
    if lengths.max() > 128:
        # The stream holds a separator between each two texts, a block 510 of its tokens.
        stream = tokens + len(lengths) - 1
        blocks = np.full(stream // 510, 512)
        in_blocks = round(len(blocks) * 510 * tokens / stream)
        runs.append(Run("edgemin_hf", ours, "blocks", batches(blocks, batch_size), in_blocks, bf16))
    return runs


def batches(lengths: Iterable[int], batch_size: int) -> list[list[int]]:
    """Cut lengths into batches."""
    whole = [int(length) for length in lengths]
    return [whole[start : start + batch_size] for start in range(0, len(whole), batch_size)]


def pass_over(
    name: str, runs: list[Run], step: Callable[[Trainer, dict[str, Tensor], bool], None]
) -> list[dict[str, Any]]:
    """Run all passes in turns, a step of each at a time, and print and return a row for each."""
    for run in runs:
        step(run.trainer, inputs_of(run.batches[0]), run.bf16)
    for steps in zip_longest(*(run.batches for run in runs)):
        for run, lengths in zip(runs, steps, strict=True):
            if lengths is not None:
                inputs = inputs_of(lengths)
                run.times.append(timed(lambda run=run, inputs=inputs: step(run.trainer, inputs, run.bf16)))
    print(f"\n{name:<20}{'batches':>9}{'':>6}{'padding':>9}{'s a step':>10}{'tokens/s':>10}{'faster':>8}")
    rows = []
    for run in runs:
        positions = sum(len(batch) * max(batch) for batch in run.batches)
        padding = 1 - sum(map(sum, run.batches)) / positions
        speed = run.tokens / sum(run.times)
        rows.append(
            {
                "texts": name,
                "who": run.who,
                "batches": run.order,
                "precision": "bf16" if run.bf16 else "fp32",
                "padding": padding,
                "seconds": sum(run.times),
                "median_step_s": statistics.median(run.times),
                "tokens": run.tokens,
                "tokens_per_s": speed,
                "faster": speed / (rows[0]["tokens_per_s"] if rows else speed),
            }
        )
        row = rows[-1]
        numbers = f"{padding:>9.1%}{row['median_step_s']:>10.3f}{speed:>10.0f}{row['faster']:>7.2f}x"
        print(f"{run.who:<20}{run.order:>9}{row['precision']:>6}{numbers}", flush=True)
    return rows


if __name__ == "__main__":
    main()
