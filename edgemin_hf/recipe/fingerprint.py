"""What results depend on, by content: what makes a finished stage the same stage, or another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import Product, StageSettings, Student, model_name
from edgemin_hf.utils.content import sha256_of


def recipe_inputs(context: Context, stage: StageSettings) -> dict[str, object]:
    """Return what a stage's result depends on of the recipe itself, at the first stage that it matters to."""
    recipe, inputs = context.recipe, dict[str, object]()
    if not context.before(stage):
        inputs |= {"teacher": model_inputs(context, recipe.teacher.model)}
        inputs |= {"seed": recipe.seed, "precision": "bf16" if context.bf16 else "fp32"}
        inputs |= {"threads": context.threads, "processes": context.processes}
        if recipe.task is not None:
            task = {name: value for name, value in asdict(recipe.task).items() if name != "test_file"}
            inputs |= {"task": task, "train_file": content(context.root / recipe.task.train_file)}
            if (labels := recipe.task.labels(context.root)) != sorted(labels):
                inputs["labels"] = labels  # earlier versions ordered all of them as text
            if recipe.task.validation_file is not None:
                inputs["validation_file"] = content(context.root / recipe.task.validation_file)
    if Product.STUDENT in stage.leaves and context.maker(Product.STUDENT, before=stage) is None:
        inputs["student"] = student_inputs(context, recipe.student)
    return inputs


def raw_text_inputs(context: Context) -> dict[str, object]:
    """Return the raw text, by its content."""
    raw = context.recipe.raw_text
    assert raw is not None  # noqa: S101 - the order of the stages is checked
    contents: object = [content(context.root / file) for file in raw.files]
    if raw.pack:
        contents = raw.source(context.root).fingerprint()
    return {"raw_text": {**asdict(raw), "contents": contents}}


def model_inputs(context: Context, model: str) -> list[object]:
    """Return what tells a model from another of its name: of a folder, its files."""
    folder = Path(model_name(model, context.root))
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]) if folder.is_dir() else []
    return [model, *([file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files)]


def student_inputs(context: Context, student: Student) -> dict[str, object]:
    """Return what tells a student's beginning from another: its shape, and its checkpoint's files."""
    checkpoint = {} if student.checkpoint is None else {"checkpoint": model_inputs(context, student.checkpoint)}
    return {**asdict(student), **checkpoint}


def content(path: Path) -> str:
    """Return the hash of a file."""
    return sha256_of(path)


def hashed(parts: Sequence[object]) -> str:
    """Return the hash of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
