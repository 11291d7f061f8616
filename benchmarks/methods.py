"""Every distillation method and none, with the same students, the same budget and the same text: a table and a figure.

    python benchmarks/methods.py --data FOLDER [--seeds 0 1 2] [--write docs/methods.md]

Stage 1 distils each student from all-MiniLM-L6-v2 on raw text by one method; then each is distilled on each task from
the fine-tuned teacher, by soft and hard labels, with a new head. PKD and MLKD-BERT's second stage add their terms
there. FOLDER holds `corpora/train.txt.zst` and `tasks/NAME/train.tsv` and `dev.tsv` (BANKING77: `test.tsv`), as GLUE's
tasks have them.
Nothing is chosen on these validation rows. What is finished is not run again, so seeds can be added.

DistilBERT's method needs a masked-LM head, which this teacher does not have: one is trained on the raw text first, with
the teacher's own weights frozen.
"""

from __future__ import annotations

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from real_tasks import TASKS, TEACHER, RealTasks, run_once
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

from edgemin_hf import create_student
from edgemin_hf.data.corpus import TokenBlocks, token_stream
from edgemin_hf.data.masking import EpochOfMasks, MaskedTokens
from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.recipe.context import CACHE
from edgemin_hf.report.curves import Bars, draw_bars
from edgemin_hf.utils.atomic_files import atomic_folder

STUDENTS: dict[str, dict[str, Any]] = {
    "3x384": {"num_hidden_layers": 3, "layers": [1, 3, 6]},
    "4x240": {"num_hidden_layers": 4, "hidden_size": 240, "intermediate_size": 960},
}
# Method -> the settings of stage 1 (None: no stage 1), and what is added to task distillation.
METHODS: dict[str, tuple[dict[str, Any] | None, list[dict[str, Any]]]] = {
    "none": (None, []),
    "minilm": ({"method": "minilm"}, []),
    "minilmv2": ({"method": "minilmv2", "teacher_layer": 6, "relation_heads": 48}, []),
    "distilbert": ({"method": "distilbert"}, []),
    "tinybert": ({"method": "tinybert"}, []),
    "pkd": (None, [{"method": "pkd"}]),
    "mlkd": ({"method": "mlkd"}, [{"method": "mlkd_task"}]),
}


def applies(student: str, method: str) -> bool:
    """Return whether a method can compare this student with the teacher: PKD's hidden states must be as wide."""
    return not (student != "3x384" and method == "pkd")


def untrained(options: argparse.Namespace, student: str, seed: int) -> Path:
    """Make the student that all others start from."""
    folder = options.output / "stage1" / f"{student}-untrained-{seed}"
    if not folder.is_dir():
        found = resolve_checkpoint(TEACHER).path
        set_seed(seed)
        made = create_student(AutoModel.from_pretrained(found, use_safetensors=True), **STUDENTS[student])
        with atomic_folder(folder) as partial:
            made.save_pretrained(partial)
            AutoTokenizer.from_pretrained(found).save_pretrained(partial)
    return folder


def stage_1(options: argparse.Namespace, student: str, method: str, seed: int) -> Path:
    """Run the recipe of stage 1, and return the folder of its student."""
    settings = METHODS[method][0]
    if settings is None:
        return untrained(options, student, seed)
    if method == "distilbert" and student != "3x384":
        settings = {**settings, "cosine_weight": 0.0}  # hidden states of different widths have no cosine
    output = options.output / "stage1" / f"{student}-{method}-{seed}"
    budget = {"max_steps": options.steps, "per_device_train_batch_size": 16, "learning_rate": 2e-4}
    recipe = {
        "teacher": {"model": str(masked_lm_teacher(options)) if method == "distilbert" else TEACHER},
        "raw_text": {"files": [str(options.data / "corpora/train.txt.zst")], "max_length": 128},
        "student": STUDENTS[student],
        "stages": [{"stage": "distill", **settings, **budget}],
    }
    run_once(recipe, output, seed)
    return output / "distill"


def on_task(options: argparse.Namespace, student: str, method: str, task: str, seed: int) -> float:
    """Distil a student on a task, and return the task's metric on the validation rows."""
    start, also = stage_1(options, student, method, seed), METHODS[method][1]
    if task == "stsb":  # a score has no classes to contrast
        also = [{**other, "contrast_weight": 0.0} if other["method"] == "mlkd_task" else other for other in also]
    tasks = tasks_of(options)
    rate = tasks.learning_rate(task)
    stage = {"stage": "task_distill", "max_steps": options.task_steps, "learning_rate": rate, "also": also}
    checkpoint = {"checkpoint": str(start.absolute())}
    return tasks.learn(f"{student}-{method}-{seed}", task, stage, seed, student=checkpoint)["after"]


def tasks_of(options: argparse.Namespace) -> RealTasks:
    """Return the tasks by this comparison's options."""
    return RealTasks(options.data, options.output, options.rows, 2 * options.task_steps)


def masked_lm_teacher(options: argparse.Namespace) -> Path:
    """Give the teacher a masked-LM head, trained on the raw text with all its own weights frozen."""
    folder = options.output / "masked-lm-teacher"
    if folder.is_dir():
        return folder
    found = resolve_checkpoint(TEACHER)
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    set_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(found.path, use_safetensors=True)
    model.base_model.requires_grad_(False)
    source = TextFiles([options.data / "corpora/train.txt.zst"])
    train, held_out = TokenBlocks(token_stream(source, tokenizer, CACHE), tokenizer, 128).split(256)
    collator = MaskedTokens(tokenizer, seed=0)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(options.output / "masked-lm-work"), max_steps=options.steps, per_device_train_batch_size=16,
            learning_rate=1e-3, warmup_ratio=0.06, save_strategy="no", report_to=[], bf16=True, use_cpu=True,
        ),
        train_dataset=train, eval_dataset=held_out, data_collator=collator, callbacks=[EpochOfMasks(collator)],
    )  # fmt: skip
    print("masked-LM head, loss before:", trainer.evaluate()["eval_loss"], flush=True)
    trainer.train()
    print("masked-LM head, loss after:", trainer.evaluate()["eval_loss"], flush=True)
    with atomic_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return folder


def main() -> None:
    """Run everything that is not finished, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with corpora/ and tasks/")
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--steps", type=int, default=150, help="steps of stage 1, of 16 x 128 tokens")
    parser.add_argument("--task-steps", type=int, default=300, help="steps of task distillation, of 32 rows")
    parser.add_argument("--rows", type=int, default=10000, help="training rows of a task, at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=STUDENTS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--write", type=Path, help="write the table into this Markdown file, the figure beside it")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    values: dict[tuple[str, str, str], list[float]] = {}
    for seed, task, student, method in product(options.seeds, options.tasks, options.students, METHODS):
        if applies(student, method):
            value = on_task(options, student, method, task, seed)
            values.setdefault((student, method, task), []).append(value)
            print(f"== seed {seed} {task} {student} {method}: {100 * value:.2f}", flush=True)
    write(options, values)


def write(options: argparse.Namespace, values: dict[tuple[str, str, str], list[float]]) -> None:
    """Print the table; write it and the figure where that is asked for."""
    teachers = {task: tasks_of(options).teacher_value(task) for task in options.tasks}
    head = f"| student | method | {' | '.join(options.tasks)} | mean |\n| --- | --- |{' ---: |' * (len(teachers) + 1)}"
    rows = [head, table_row("6x384", "teacher", [[value] for value in teachers.values()])]
    pictures = []
    for student in options.students:
        methods = [method for method in METHODS if (student, method, options.tasks[0]) in values]
        found = {method: [values[student, method, task] for task in options.tasks] for method in methods}
        rows += [table_row(student, method, cells) for method, cells in found.items()]
        means = {method: [float(np.mean(seed)) for seed in zip(*cells, strict=True)] for method, cells in found.items()}
        pictures.append(Bars(student, {method: [100 * mean for mean in of] for method, of in means.items()}))
    table = "\n".join(rows)
    print(table)
    if options.write:
        before, marker, _ = options.write.read_text(encoding="utf-8").partition(MARKER)
        options.write.write_text(f"{before}{marker}\n\n{table}\n", encoding="utf-8")
        svg = draw_bars(pictures, "mean over the tasks (points)", "Distillation methods, mean over the tasks")
        options.write.with_suffix(".svg").write_text(svg, encoding="utf-8")


MARKER = "<!-- table: written by benchmarks/methods.py -->"


def table_row(student: str, method: str, cells: list[list[float]]) -> str:
    """Format a row: the mean over seeds, and where there are several, their range."""

    def show(found: list[float]) -> str:
        low, high = 100 * min(found), 100 * max(found)
        mean = 100 * sum(found) / len(found)
        return f"{mean:.1f}" if len(found) == 1 else f"{mean:.1f} ({low:.1f}–{high:.1f})"

    means = [float(np.mean(seed)) for seed in zip(*cells, strict=True)]
    return f"| {' | '.join([student, method, *map(show, [*cells, means])])} |"


if __name__ == "__main__":
    main()
