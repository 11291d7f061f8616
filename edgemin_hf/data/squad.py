"""SQuAD's own JSON, of v1.1 and v2.0, as rows: articles hold paragraphs, and a paragraph holds its questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from datasets import Features, List, Value

FEATURES = Features(
    {
        "id": Value("string"),
        "title": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
    }
)
"""The columns of a row, as `datasets` has them."""


class Answers(TypedDict):
    """The answers that people gave to a question; none where its context has no answer.

    Attributes:
        text: Each answer.
        answer_start: The character of the context, counted from 0, that each begins with.
    """

    text: list[str]
    answer_start: list[int]


def is_squad(path: Path) -> bool:
    """Return whether a file is SQuAD's JSON: one object whose "data" are articles with paragraphs.

    Of JSON lines the first line alone is read.
    """
    with path.open(encoding="utf-8-sig") as file:
        line = file.readline()
        try:
            found = json.loads(line)
        except ValueError:  # an object of several lines, or broken
            try:
                found = json.loads(line + file.read())
            except ValueError:
                return False
    articles = found.get("data") if isinstance(found, dict) else None
    return isinstance(articles, list) and all(isinstance(one, dict) and "paragraphs" in one for one in articles)


def squad_rows(path: str, version: object = None) -> Iterator[dict[str, object]]:
    """Yield the questions of a SQuAD file, a row each, with `FEATURES`.

    Answers that v2.0 calls plausible, to questions without one, are left out.

    Args:
        path: The file.
        version: Whatever else names its content, for a cache of what was read.

    Raises:
        ValueError: If an article, a paragraph or a question lacks what it must have.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.data.squad import squad_rows
        >>> answers = [{"text": "in June", "answer_start": 9}]
        >>> paragraph = {"context": "It began in June.", "qas": [{"id": "a", "question": "When?", "answers": answers}]}
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "train-v1.1.json")
        ...     _ = file.write_text(json.dumps({"version": "1.1", "data": [{"title": "", "paragraphs": [paragraph]}]}))
        ...     [row["answers"] for row in squad_rows(str(file))]
        [{'text': ['in June'], 'answer_start': [9]}]
    """
    for number, article in enumerate(json.loads(Path(path).read_text(encoding="utf-8-sig"))["data"], start=1):
        try:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    yield {
                        "id": asked["id"],
                        "title": article.get("title", ""),
                        "context": paragraph["context"],
                        "question": asked["question"],
                        "answers": answers_of(asked.get("answers", [])),
                    }
        except (KeyError, TypeError) as error:
            raise ValueError(f"article {number}: {type(error).__name__}: {error}") from None


def answers_of(value: object) -> Answers:
    """Return answers as two lists, whichever of the two ways they stand in a row.

    Args:
        value: {"text": [...], "answer_start": [...]} as `datasets` has it, or [{"text", "answer_start"}, ...] as SQuAD.

    Raises:
        ValueError: If they are neither.

    Example:
        >>> from edgemin_hf.data.squad import answers_of
        >>> answers_of([{"answer_start": 67, "text": "Simon Fuller"}])
        {'text': ['Simon Fuller'], 'answer_start': [67]}
    """
    try:
        if isinstance(value, list):
            value = {name: [one[name] for one in value] for name in ("text", "answer_start")}
        text, start = value["text"], value["answer_start"]  # type: ignore[index] # what it is not is caught
        if len(text) == len(start) and all(isinstance(one, str) for one in text) and all(map(_is_place, start)):
            return {"text": list(text), "answer_start": list(start)}
    except (KeyError, TypeError):
        pass
    raise ValueError(f"answers {value!r}"[:200] + '; expected: {"text": [...], "answer_start": [...]}, as in SQuAD')


def _is_place(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
