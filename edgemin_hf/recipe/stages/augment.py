"""The stage `augment`: the task's training rows, and copies of them with other words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer

from edgemin_hf.data.augmentation import augment_texts
from edgemin_hf.data.masked_lm import load_masked_lm
from edgemin_hf.hub.checkpoints import resolve_checkpoint
from edgemin_hf.recipe.context import AUGMENTED_ROWS, Run
from edgemin_hf.recipe.schema import model_name
from edgemin_hf.recipe.stages.settings import Augment
from edgemin_hf.utils.atomic_files import write_atomic

_TEXTS_A_PART = 512


def augment(run: Run, stage: Augment, folder: Path, work: Path) -> dict[str, Any]:
    """Write the training rows and their copies as one table; the parts that a killed run had finished stay.

    Args:
        run: The recipe at work.
        stage: The settings of the augmentation.
        folder: Where the table is to stand.
        work: Where the finished parts are kept meanwhile.

    Returns:
        The number of rows, as a note.
    """
    checkpoint = run.base_folder
    if stage.model is not None:
        checkpoint = resolve_checkpoint(model_name(stage.model, run.root)).path
    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), load_masked_lm(checkpoint).to(PartialState().device)
    table = run.task.train_table(run.root, run.recipe.seed)
    vectors = None if stage.vectors is None else str(run.root / stage.vectors)
    tables = [table]
    for column in run.task.text_columns:
        copies = list[tuple[int, str]]()
        for part, start in enumerate(range(0, len(table), _TEXTS_A_PART)):
            file = work / f"{column}-{part}.json"
            if not file.is_file():
                settings = stage.settings(run.recipe.seed + part, vectors)
                texts = table[column][start : start + _TEXTS_A_PART]
                write_atomic(file, json.dumps(augment_texts(texts, tokenizer, model, settings)))
            copies += [(start + row, text) for row, text in json.loads(file.read_text(encoding="utf-8"))]
        rows, texts = [row for row, _ in copies], [text for _, text in copies]
        tables.append(table.select(rows).remove_columns(column).add_column(column, texts).cast(table.features))
    augmented: Dataset = concatenate_datasets(tables)
    augmented.to_parquet(folder / AUGMENTED_ROWS)
    return {"notes": [f"{len(table):,} rows became {len(augmented):,}"]}
