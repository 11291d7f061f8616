"""Tables of questions: SQuAD's own files or rows, read and checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, Features

from edgemin_hf.data.squad import FEATURES, Answers, answers_of
from edgemin_hf.data.tables import check_table, quiet, read_table, values_of

_COLUMNS = ("context", "question", "answers")
_SHOWN = 60
"""Characters of a text in a message."""


def read_questions(path: Path) -> Dataset:
    """Read a table of questions: the columns "context", "question" and "answers", the last as two lists.

    Raises:
        ValueError: If one is missing, or answers are something else.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.tasks.questions import read_questions
        >>> row = {"id": 7, "context": "It began in June.", "question": "When?"}
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train.jsonl")
        ...     _ = file.write_text(json.dumps({**row, "answers": [{"text": "June", "answer_start": 12}]}))
        ...     read_questions(file)[0]["answers"]
        {'text': ['June'], 'answer_start': [12]}
    """
    table = read_table(path)
    for column in _COLUMNS:
        if column not in table.column_names:
            raise ValueError(f"column {column!r} of {path}; allowed: {', '.join(table.column_names)}")
    table = table.select_columns(list(_COLUMNS))
    if table.features["answers"] == FEATURES["answers"]:
        return table

    def as_lists(answers: object, row: int) -> dict[str, Answers]:
        try:
            return {"answers": answers_of(answers)}
        except ValueError as error:
            raise ValueError(f"row {row + 1} of {path}: {error}") from None

    features = Features({**table.features, "answers": FEATURES["answers"]})
    with quiet():
        return table.map(as_lists, input_columns="answers", with_indices=True, features=features)


def read_unlabelled(path: Path) -> Dataset:
    """Read questions without their answers: the columns "context" and "question".

    Raises:
        ValueError: If one is missing, or a row has no question or no context.
    """
    check_table(path, "context", "question")
    table = read_table(path).select_columns(["context", "question"])
    _check_texts(table, path)
    return table


def check_questions(path: Path) -> None:
    """Check that each row of a table has a question and a context, and that its answers are where they say.

    Raises:
        ValueError: If not; the message names the row.
    """
    check_table(path, "context", "question")
    table = read_questions(path)
    _check_texts(table, path)
    sides = (values_of(table, column) for column in ("context", "answers"))
    for row, (context, answers) in enumerate(zip(*sides, strict=True), start=1):
        for text, start in zip(answers["text"], answers["answer_start"], strict=True):
            if not text.strip():
                told = "expected: one, or empty lists where there is no answer"
                raise ValueError(f"an answer without text in row {row} of {path}; {told}")
            found = context[start : start + len(text)] if start >= 0 else ""
            if found != text:
                there = f"where its context has {_short(found)} from character {start} on"
                raise ValueError(f"answer {_short(text)} in row {row} of {path}, {there}; expected: the answer itself")


def _check_texts(table: Dataset, path: Path) -> None:
    for name in ("question", "context"):
        for row, text in enumerate(values_of(table, name), start=1):
            if not str(text).strip():
                raise ValueError(f"{text!r} as {name} in row {row} of {path}; expected: a text")


def have_answers(table: Dataset) -> Iterator[bool]:
    """Yield for each question whether it has an answer."""
    return (bool(texts) for texts in values_of(table.flatten(), "answers.text"))


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
