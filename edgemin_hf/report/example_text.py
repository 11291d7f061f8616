"""The text that a card's snippets ask about: one that the recipe gives, or a neutral one, never a row of the data."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from edgemin_hf.data.tables import Text
from edgemin_hf.tasks.base import Task

_PAIR = ("A man is playing the guitar.", "Somebody makes music.")
_NEUTRAL: dict[str, Text] = {
    "question_answering": (
        "Where is the Eiffel Tower?",
        "The Eiffel Tower is a tower of wrought iron in Paris, which was finished in 1889.",
    ),
    "reranking": ("how do plants make food?", "Plants make sugar from light, water and carbon dioxide."),
    "sentence_embedding": _PAIR,
    "token_classification": "Ada Lovelace met Charles Babbage in London in 1833.",
}
"""Texts by the types of tasks that not just any sentence would show."""
_SENTENCE = "The train to the coast was late, but the weather was fine."
_WORDS = 24
"""Words in whose middle one is masked, at most: no model is too short to read them."""


def check_example(task: Task, given: str | Sequence[str] | None) -> None:
    """Check that a text from a recipe is what the task reads.

    Raises:
        ValueError: If it is one text where the task reads two, or the other way round.
    """
    if given is None:
        return
    two = isinstance(_neutral(task), tuple)
    texts = [given] if isinstance(given, str) else list(given)
    if len(texts) != 1 + two or not all(text.strip() for text in texts):
        allowed = "a list of two texts" if two else "one text"
        raise ValueError(f"example: {given}; allowed for this task: {allowed}")


def example_text(task: Task, given: str | Sequence[str] | None = None, mask: str | None = None) -> Text:
    """Return a text, or a pair, for the snippets: a pair too where texts are compared by their vectors.

    Args:
        task: The task.
        given: What the recipe gives; None takes a neutral text.
        mask: With it a word in the middle of the text's beginning is masked.

    Example:
        >>> from edgemin_hf.report.example_text import example_text
        >>> from edgemin_hf.tasks import TextClassification
        >>> task = TextClassification("train.csv", "test.csv")
        >>> example_text(task, "My card has not arrived.")
        'My card has not arrived.'
        >>> example_text(task)
        'The train to the coast was late, but the weather was fine.'
    """
    text: Text = _neutral(task)
    if given is not None:
        first, *second = [given] if isinstance(given, str) else given
        text = (first, second[0]) if second else first
    if mask is not None:
        words = str(text).split()[: min(_WORDS, task.max_length // 4)]
        return " ".join([*words[: len(words) // 2], mask, *words[len(words) // 2 + 1 :]])
    return text


def as_argument(text: Text) -> str:
    r"""Return a text as `edgemin predict` takes it in a shell: a pair with a tab between.

    Example:
        >>> from edgemin_hf.report.example_text import as_argument
        >>> print(as_argument("My card"))
        --text 'My card'
        >>> print(as_argument(("Where is it?", "In Paris.")))
        --text "$(printf '%s\t%s' 'Where is it?' 'In Paris.')"
    """
    if isinstance(text, str):
        return f"--text {quote(text)}"
    return f"""--text "$(printf '%s\\t%s' {quote(text[0])} {quote(text[1])})\""""


def _neutral(task: Task) -> Text:
    return _NEUTRAL.get(task.type) or (_PAIR if len(task.reading.columns) == 2 else _SENTENCE)
