"""The stage `prune_vocabulary`: the student without the tokens that its texts never use, and its own tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.pruning.vocabulary import prune_vocabulary
from edgemin_hf.recipe.context import Run
from edgemin_hf.recipe.schema import RecipeError
from edgemin_hf.recipe.stages.settings import PruneVocabulary


def cut_student_vocabulary(run: Run, stage: PruneVocabulary, folder: Path) -> dict[str, Any]:
    """Cut the student to the tokens of the task's training texts, and of further files.

    Args:
        run: The recipe at work.
        stage: The stage's settings.
        folder: Where student and tokenizer are to stand.

    Returns:
        The numbers of tokens before and after, as a note.

    Raises:
        RecipeError: If the tokenizer is of a kind that can't be cut, or no token is used often enough.
    """
    student = run.student(stage)
    before = student.config.vocab_size
    try:
        tokenizer = prune_vocabulary(student, run.tokenizer, tqdm(_texts(run, stage), desc="Texts", unit=" texts"),
                                     min_count=stage.min_count)  # fmt: skip
    except ValueError as error:
        raise RecipeError(f"{stage.stage}.{error}") from error
    student.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"notes": [f"{before:,} tokens became {student.config.vocab_size:,}"]}


def _texts(run: Run, stage: PruneVocabulary) -> Iterator[str]:
    table = run.task.train_table(run.root, run.recipe.seed)
    files = TextFiles([run.root / file for file in stage.files], stage.text_column)
    return chain(*(table[column] for column in run.task.text_columns), (piece.text for piece in files.pieces()))
