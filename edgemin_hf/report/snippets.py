"""What the snippets of a model card call a model with, as Python's literals."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgemin_hf.data.tables import Text
from edgemin_hf.tasks.question_answering import QuestionAnswering


def snippets(
    example: Text, pipeline_arguments: Mapping[str, object], cut: int | None, *, asks: bool
) -> dict[str, object]:
    """Return what the template's snippets call a model with.

    Args:
        example: A text, a pair of texts, or a question with its context.
        pipeline_arguments: As of `CardFacts`.
        cut: Tokens after which a pipeline is told to cut texts; None where it can't be told.
        asks: Whether the example is a question with its context.
    """
    texts = [example] if isinstance(example, str) else list(example)
    arguments = {} if cut is None else {"truncation": True, "max_length": cut}
    told = "".join(f", {name}={_written(value)}" for name, value in {**arguments, **pipeline_arguments}.items())
    shown = literal(texts[0] if len(texts) == 1 else {"text": texts[0], "text_pair": texts[1]})
    if asks:
        shown = f"question={literal(texts[0])}, context={literal(texts[1])}"
    return {
        "pairs": len(texts) == 2,
        "arguments": told,
        "example": shown,
        "texts": list(map(literal, texts)),
        "asked": literal(texts[0]) if len(texts) == 1 else f"({', '.join(map(literal, texts))})",
    }


def reading_arguments(task: QuestionAnswering) -> dict[str, object]:
    """Return what a call of the pipeline needs to read and answer as the task does."""
    no_answer = {} if task.no_answer_threshold is None else {"handle_impossible_answer": True}
    lengths = {"max_seq_len": task.max_length, "doc_stride": task.stride, "max_answer_len": task.max_answer_length}
    return {**lengths, **no_answer}


def _written(value: object) -> str:
    return literal(value) if isinstance(value, str) else repr(value)


def literal(value: str | Mapping[str, str]) -> str:
    """Write a string, or a mapping of strings, as a Python literal with double quotes."""
    return json.dumps(value, ensure_ascii=False)
