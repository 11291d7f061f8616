"""Whether training on a GPU computes what it computes on a CPU and in fp32, and what it costs: at most 8 minutes.

    python benchmarks/gpu.py [--cpu] [--tiny] [--output FILE]

Nothing is fetched: models are built from configurations, with random weights, and texts are random words. Without a
GPU, or with --cpu, all of it runs on the CPU with smaller models, but for fp16, which the CPU does not train in; --tiny
takes the smallest. Each row of the tables says what was measured and whether what must hold does; one that does not
makes the exit code 1.

- Steps: of each method, the same batch and weights in fp32, bf16 and fp16, as `DistillationTrainer` computes them. The
  gradients after unscaling must point where those of fp32 do, and small ones must not become zero.
- Relation loss: forward and backward beside the same loss by complete maps, at 512 and 1,024 tokens.
- Quantisation-aware training, one-shot and gradual pruning, and teacher logits, on the device: what is chosen or
  computed must be what the CPU chooses or computes.
- Resume: a run that goes on from a checkpoint must end where one without a break does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from common import in_turns, write_json
from datasets import Dataset
from gpu_bench import SIZES, Bench, Row, Watch
from relation_memory import LOSSES, projections
from torch import Tensor
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from edgemin_hf import (
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    cached_teacher_logits,
)
from edgemin_hf.data.padding import TEACHER_LOGITS
from edgemin_hf.distillation.base import DistillationConfig
from edgemin_hf.distillation.known import METHODS
from edgemin_hf.modeling.families import shape_of
from edgemin_hf.modeling.pruned_shape import pruned_shape
from edgemin_hf.quantization.native import fake_quantized_linears
from edgemin_hf.utils.compat import group_by_length

ANGLE, ZEROED = {"bf16": 0.02, "fp16": 0.005}, 0.05
"""How far 1 - cosine to fp32's gradients may go in lower precision, and which share of them may have become zero."""
LOSS = {"bf16": 0.03, "fp16": 0.01}
"""By which share of it a loss may differ from fp32's."""


def steps(bench: Bench) -> Iterator[Row]:
    """Compare a step of each method in lower precision with the same one in fp32."""
    precisions = ["bf16", "fp16"] if bench.device.type == "cuda" else ["bf16"]
    for name, kind in {**METHODS, "task": TaskDistillationConfig}.items():
        method = kind(relation_heads=bench.size.heads) if name == "minilmv2" else kind()
        found = {precision: one_step(bench, method, precision) for precision in ["fp32", *precisions]}
        loss, exact, seconds = found["fp32"]
        yield Row(f"{name} fp32", {"loss": loss, "ms": 1e3 * seconds}, loss > 0 and bool(exact))
        for precision in precisions:
            low_loss, low, low_seconds = found[precision]
            angle, zeroed = compared(exact, low)
            numbers = {"loss": low_loss, "ms": 1e3 * low_seconds, "1 - cosine": angle, "zeroed": zeroed}
            close = abs(low_loss / loss - 1) <= LOSS[precision]
            yield Row(f"{name} {precision}", numbers, close and angle <= ANGLE[precision] and zeroed <= ZEROED)


def one_step(bench: Bench, method: DistillationConfig, precision: str) -> tuple[float, dict[str, Tensor], float]:
    """Return loss, gradients and seconds of a step; the weights stay, so that fp16 may look for its scale."""
    masked = getattr(method, "teacher_head", None) == "masked_lm"
    teacher = bench.teacher(BertForMaskedLM if masked else BertForSequenceClassification)
    student = bench.student(teacher)
    try:
        if hasattr(method, "check_shapes"):
            method.check_shapes(shape_of(student.config), shape_of(teacher.config))
    except ValueError:  # it compares what must be as wide
        student = bench.student(teacher, wide=True)
    watch, collation = Watch(bench), None
    if hasattr(method, "collation"):
        collation = method.collation(bench.tokenizer, 0)
    own = {} if collation is None else {"data_collator": collation[0]}
    torch.manual_seed(3)
    rows = bench.rows(1)
    rows = rows.remove_columns("labels") if masked else rows
    trainer = bench.trainer(
        student, teacher, method, rows, precision, max_steps=6, learning_rate=0.0, callbacks=[watch], **own
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return statistics.median(losses), watch.gradients, statistics.median(watch.seconds[1:])


def compared(exact: dict[str, Tensor], low: dict[str, Tensor]) -> tuple[float, float]:
    """Return 1 - cosine of two gradients, and the share of the first's numbers that are zero in the second alone."""
    if exact.keys() != low.keys():
        return 1.0, 1.0
    ours, theirs = (torch.cat([g[name].flatten() for name in sorted(exact)]).double() for g in (exact, low))
    some = ours != 0
    cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=0).item()
    return 1 - cosine, ((theirs == 0) & some).sum().item() / max(1, some.sum().item())


def relation_loss(bench: Bench) -> Iterator[Row]:
    """Measure the relation loss beside complete maps."""
    for batch, length in bench.size.relations:
        student, teacher = (
            {name: tensor.detach().to(bench.device) for name, tensor in side.items()}
            for side in projections(batch, length)
        )
        values: dict[str, float] = {}

        def run(name: str, ours=student, theirs=teacher, values=values) -> None:
            side = {key: tensor.clone().requires_grad_() for key, tensor in ours.items()}
            loss = LOSSES[name](side, theirs)
            loss.backward()
            values[name] = loss.item()  # waits for the device

        seconds = dict(
            zip(LOSSES, in_turns([lambda n=name: run(n) for name in LOSSES], bench.size.repeats), strict=True)
        )
        peaks = {name: bench.peak_mb(lambda n=name: run(n)) for name in LOSSES}
        complete, ours = "whole maps", "edgemin_hf"
        numbers = {"ms": 1e3 * seconds[ours], "ms complete": 1e3 * seconds[complete]}
        numbers |= {"MB": peaks[ours], "MB complete": peaks[complete]}
        equal = abs(values[ours] / values[complete] - 1) < 1e-4
        yield Row(f"{batch} x {length}", numbers, equal and peaks[ours] <= 0.5 * peaks[complete])


def quantization(bench: Bench) -> Iterator[Row]:
    """Train with fake quantisation on the device."""
    rows, teacher = bench.rows(1), bench.teacher()
    for weights in ("int8", "int4"):
        watch, student = Watch(bench), bench.student(teacher)
        config = QuantizationConfig(weights=weights, calibration_examples=2 * bench.size.batch)
        task = TaskDistillationConfig()
        trainer = bench.trainer(
            student,
            teacher,
            task,
            rows,
            max_steps=12,
            learning_rate=1e-3,
            quantization_config=config,
            callbacks=[watch],
        )  # fmt: skip
        trainer.train()
        losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        ranges = [module.input_high > module.input_low for module in fake_quantized_linears(student)]
        there = {parameter.device.type for parameter in student.parameters()} == {bench.device.type}
        learns = losses[-1] < losses[0]
        numbers = {"first loss": losses[0], "last": losses[-1], "ms": 1e3 * statistics.median(watch.seconds[1:])}
        yield Row(weights, numbers, there and learns and all(ranges))


def pruning(bench: Bench) -> Iterator[Row]:
    """Prune on the device in one shot, which must choose as the CPU does, and gradually."""
    rows, teacher = bench.rows(8), bench.teacher()
    for saliency in ("taylor", "fisher", "taylor_weights"):
        config = PruningConfig(0.5, 0.5, saliency=saliency, saliency_examples=4 * bench.size.batch)
        kept = []
        for device in (bench.device, torch.device("cpu")):
            there = Bench(device, bench.size, bench.folder)
            student = there.student(teacher.cpu())
            there.trainer(
                student, teacher, TaskDistillationConfig(), rows, max_steps=1, pruning_config=config
            ).prepare()
            kept.append([set(heads) for heads in pruned_shape(student.config).heads])
        same = [len(ours & theirs) / len(ours) for ours, theirs in zip(*kept, strict=True)]
        yield Row(f"one shot, {saliency}", {"heads as on the CPU": min(same)}, min(same) == 1)
    teacher.to(bench.device)
    watch, student = Watch(bench), bench.student(teacher)
    config = PruningConfig(0.5, 0.5, schedule="cubic", rounds=4)
    trainer = bench.trainer(
        student, teacher, TaskDistillationConfig(), rows, max_steps=16, pruning_config=config, callbacks=[watch]
    )
    trainer.train()
    left = {len(heads) for heads in pruned_shape(student.config).heads}
    numbers = {"heads left": max(left), "ms": 1e3 * statistics.median(watch.seconds[1:])}
    yield Row("gradual", numbers, left == {config.kept_heads(bench.size.heads)})


def teacher_logits(bench: Bench) -> Iterator[Row]:
    """Compute a teacher's logits once, which must be those of the CPU and train as the teacher beside does."""
    rows, teacher = bench.rows(4), bench.teacher().eval()
    found, seconds = [], []
    for device in (bench.device, torch.device("cpu")):
        start = time.perf_counter()
        file = bench.folder / f"logits-{len(found)}.safetensors"
        found.append(cached_teacher_logits(teacher.to(device), rows, bench.tokenizer, file, "key"))
        seconds.append(time.perf_counter() - start)
    difference = (found[0] - found[1]).abs().max().item() / found[1].abs().max().item()
    yield Row("as the CPU's", {"difference": difference, "ms": 1e3 * seconds[0]}, difference < 1e-3)
    losses = []
    for cached in (False, True):
        data = rows.add_column(TEACHER_LOGITS, list(found[0].numpy())) if cached else rows
        student = bench.student(teacher)
        trainer = bench.trainer(student, None if cached else teacher, TaskDistillationConfig(), data, max_steps=4)
        losses.append(trainer.train().training_loss)
    difference = abs(losses[1] / losses[0] - 1)
    yield Row("as the teacher beside", {"difference": difference}, difference < 1e-3)


def resume(bench: Bench) -> Iterator[Row]:
    """Go on from a checkpoint; a GPU adds in another order each time, so a second run tells what that alone does."""
    rows, teacher = bench.rows(8), bench.teacher()
    for precision in ("fp32", "bf16"):
        straight, again = (trained(bench, teacher, rows, precision, 8)[0] for _ in range(2))
        _, checkpoint = trained(bench, teacher, rows, precision, 4)
        broken, _ = trained(bench, teacher, rows, precision, 8, checkpoint)
        noise, difference = ((ended - straight).norm().item() / straight.norm().item() for ended in (again, broken))
        yield Row(precision, {"difference": difference, "run by run": noise}, difference <= 3 * noise)


def trained(
    bench: Bench, teacher: PreTrainedModel, rows: Dataset, precision: str, until: int, checkpoint: Path | None = None
) -> tuple[Tensor, Path]:
    """Train until a step of eight, and return all weights and the last checkpoint."""

    class Stop(TrainerCallback):
        def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
            control.should_training_stop = control.should_training_stop or state.global_step >= until

    settings = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, **group_by_length()}
    student = bench.student(teacher)
    trainer = bench.trainer(student, teacher, TaskDistillationConfig(), rows, precision, callbacks=[Stop()], **settings)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    weights = torch.cat([weight.detach().float().cpu().flatten() for weight in student.parameters()])
    return weights, Path(trainer.args.output_dir) / f"checkpoint-{until}"


MEASURED: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "steps": steps,
    "relation loss": relation_loss,
    "quantisation": quantization,
    "pruning": pruning,
    "teacher logits": teacher_logits,
    "resume": resume,
}


def main() -> None:
    """Measure everything, print a table each, and tell what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, also where there is a GPU")
    parser.add_argument("--tiny", action="store_true", help="take the smallest models")
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=list(MEASURED), help="measure these alone")
    parser.add_argument("--output", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # of several, a Trainer would take all
    device = torch.device("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    size = SIZES["tiny" if options.tiny else device.type]
    start, failed, tables = time.perf_counter(), list[str](), dict[str, list[Row]]()
    with tempfile.TemporaryDirectory() as folder:
        for title in options.only:
            print(f"\n{title}, on {name}", flush=True)
            tables[title] = []
            try:
                for row in MEASURED[title](Bench(device, size, Path(folder))):
                    numbers = "".join(f"{key:>22} {value:<9.4g}" for key, value in row.numbers.items())
                    print(f"  {row.case:<26}{'holds' if row.holds else 'FAILS'}{numbers}", flush=True)
                    tables[title].append(row)
                    failed += [] if row.holds else [f"{title}: {row.case}"]
            except Exception as error:  # the other tables are worth their minutes all the same
                traceback.print_exc()
                failed.append(f"{title}: {type(error).__name__}: {error}")
    seconds = time.perf_counter() - start
    rows = {title: [vars(row) for row in rows] for title, rows in tables.items()}
    write_json(options.output, {"device": name, "seconds": seconds, "torch": torch.__version__, "tables": rows})
    print(f"\n{sum(map(len, tables.values()))} rows in {seconds:.0f} s; {len(failed)} fail", flush=True)
    if failed:
        raise SystemExit("\n".join(["what must hold does not:", *failed]))


if __name__ == "__main__":
    main()
