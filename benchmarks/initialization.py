"""Which initialisation learns faster when the student's widths are not the teacher's? A table.

    python benchmarks/initialization.py [--teacher FOLDER] [--steps 160] [--task-steps 120] [--output FILE]

The quickstart's teacher, fine-tuned on BANKING77 (FOLDER holds one that is), teaches a student of 4 x 256 with 8 heads:
first by MiniLMv2 on raw text, then on the task, with the same steps, data and seeds for every initialisation. The loss
is measured on held-out raw text, the accuracy on the task's validation rows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedModel, PrinterCallback, TrainingArguments, set_seed
from transformers.trainer_utils import IntervalStrategy

from edgemin_hf import DistillationTrainer, MiniLMv2Config, TaskDistillationConfig, create_student
from edgemin_hf.modeling.initialization import INITIALIZATIONS
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.runner import run_recipe
from edgemin_hf.recipe.yaml_file import load_recipe

SHAPE = {"num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024}
RELATION_HEADS = 32
HELD_OUT = 512


def main() -> None:
    """Train a student by each initialisation and seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/quickstart.yaml"))
    parser.add_argument("--teacher", type=Path, help="a fine-tuned teacher; without it one is made in runs/")
    parser.add_argument("--initializations", nargs="+", default=list(INITIALIZATIONS), choices=INITIALIZATIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=160, help="of MiniLMv2")
    parser.add_argument("--task-steps", type=int, default=120, help="of task distillation")
    parser.add_argument("--points", type=int, default=4, help="evaluations on the way")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    context = prepare(options)
    text = context.raw_text[0].train_test_split(test_size=HELD_OUT, seed=context.recipe.seed)
    train, validation = context.data_with_teacher_logits
    rows = []
    for seed in options.seeds:
        for name in options.initializations:
            teacher = context.load(context.teacher_folder)
            set_seed(seed)
            student = create_student(teacher, **SHAPE, initialization=name)
            relations, task = MiniLMv2Config(relation_heads=RELATION_HEADS), TaskDistillationConfig()
            raw = (text["train"], text["test"])
            first = make_trainer(context, student, teacher, relations, raw, options.steps, seed)
            losses = learn(first, "loss", options.points)
            second = make_trainer(context, student, None, task, (train, validation), options.task_steps, seed)
            accuracies = learn(second, "accuracy", options.points)
            rows.append({"initialization": name, "seed": seed, "relation_loss": losses, "accuracy": accuracies})
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows, options))
    if options.output:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        result = {"settings": settings | SHAPE, "bf16": context.bf16, "threads": context.threads, "rows": rows}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def prepare(options: argparse.Namespace) -> Context:
    """Load the recipe with its teacher, which is fine-tuned first where none is given."""
    overrides = ["output_dir=runs/initialization"]
    if options.teacher:
        overrides.append(f"teacher.model={options.teacher.absolute()}")
    if options.threads:
        overrides.append(f"threads={options.threads}")
    recipe, settings = load_recipe(options.recipe, overrides)
    root = options.recipe.resolve().parent
    recipe.stages = [] if options.teacher else [stage for stage in recipe.stages if stage.stage == "finetune"]
    if recipe.stages:
        run_recipe(recipe, settings, root)
    return Context(recipe, settings, root, Path(recipe.output_dir))


def make_trainer(
    context: Context,
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    method: MiniLMv2Config | TaskDistillationConfig,
    data: tuple[Dataset, Dataset],
    steps: int,
    seed: int,
) -> DistillationTrainer:
    """Make the trainer of one stage; the settings are the quickstart's, but for the number of steps."""
    arguments = TrainingArguments(
        tempfile.gettempdir(),
        max_steps=steps,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=3e-4 if isinstance(method, MiniLMv2Config) else 2e-4,
        warmup_ratio=0.06,
        weight_decay=0.01,
        group_by_length=True,
        bf16=context.bf16,
        use_cpu=True,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )
    return DistillationTrainer(
        student,
        teacher,
        arguments,
        distillation_config=method,
        train_dataset=data[0],
        eval_dataset=data[1],
        processing_class=context.tokenizer,
        data_collator=DataCollatorWithPadding(context.tokenizer),
        compute_metrics=context.task.compute_metrics if isinstance(method, TaskDistillationConfig) else None,
    )


def learn(trainer: DistillationTrainer, metric: str, points: int) -> dict[int, float]:
    """Train, and return the metric on held-out rows by step, that before the first included."""
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()[f"eval_{metric}"]
    trainer.args.eval_strategy = IntervalStrategy.STEPS
    trainer.args.eval_steps = max(1, trainer.args.max_steps // points)
    trainer.train()
    logs = [log for log in trainer.state.log_history if log["step"] and f"eval_{metric}" in log]
    return {0: before} | {log["step"]: log[f"eval_{metric}"] for log in logs}


def table(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """Format the means over seeds as a Markdown table."""

    def mean(name: str, metric: str, step: int) -> float:
        return statistics.mean(row[metric][step] for row in rows if row["initialization"] == name)

    points = [("relation_loss", step) for step in rows[0]["relation_loss"]]
    points += [("accuracy", step) for step in rows[0]["accuracy"] if step]
    lines = [
        "| initialization | "
        + " | ".join(f"{'loss' if metric == 'relation_loss' else 'accuracy %'}, step {step}" for metric, step in points)
        + " |",
        "| --- |" + " ---: |" * len(points),
    ]
    for name in options.initializations:
        values = [(metric, mean(name, metric, step)) for metric, step in points]
        cells = [f"{value:.3f}" if metric == "relation_loss" else f"{100 * value:.1f}" for metric, value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
