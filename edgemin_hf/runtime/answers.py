"""Answers to questions: spans of the contexts that come with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import ClassVar, TypedDict

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from edgemin_hf.runtime.answer_spans import best_spans, find_answers
from edgemin_hf.runtime.artefact import Artefact
from edgemin_hf.runtime.contexts import context_offsets, longest_stride, shortened, without_space
from edgemin_hf.runtime.model import Model, chunks, is_text

_STRIDE, _ANSWER_LENGTH = 128, 30


class FoundAnswer(TypedDict):
    """An answer: its probability in its window, its characters in the context, and its text; "" where there is none."""

    score: float
    start: int
    end: int
    answer: str


class Answerer(Model):
    """A model that finds the answer to a question in a context.

    A context that is longer than the model reads goes through several windows; the best span of all is the answer.

    Example:
        >>> from edgemin_hf.runtime import Answerer
        >>> Answerer.methods
        ('answer',)
    """

    methods: ClassVar = ("answer",)

    def __init__(
        self, artefact: Artefact, file: str | None = None, threads: int = 1, providers: Sequence[str] | None = None
    ) -> None:
        super().__init__(artefact, file, threads, providers)
        stride, longest = artefact.reading.stride, self.max_length
        stride = min(_STRIDE if stride is None else stride, longest_stride(longest))
        # As in the pipeline: the context stands first where the tokenizer pads on the left.
        self._context_first = artefact.tokenizer_config.get("padding_side") == "left"
        self.reader = self.reader_for(longest, stride, "only_first" if self._context_first else "only_second")

    def answer(self, question: str | Iterable[str], context: str | Iterable[str]) -> FoundAnswer | list[FoundAnswer]:
        """Return the answer to a question, or to many.

        Args:
            question: A question, or many.
            context: The text that it is about, or one for each question; one alone serves all.

        Returns:
            What the pipeline "question-answering" gives, of one or in a list: `score`, `start`, `end`, `answer`. Of
            several windows the span with the best sum of logits counts. "" with `start` and `end` 0 says that there is
            no answer, where the artefact has a threshold for that; its score is the least probability of that in any
            window.

        Raises:
            ValueError: If one is no text, or there are not as many contexts as questions.
        """
        if isinstance(question, str) and isinstance(context, str):
            return self._answers([(question, context)])[0]
        for name, given in (("question", question), ("context", context)):
            if not isinstance(given, Iterable):
                raise ValueError(f"{name}: {given!r}; expected: a text, or many")
        questions = [question] if isinstance(question, str) else list(question)
        contexts = list(repeat(context, len(questions)) if isinstance(context, str) else context)
        if len(questions) != len(contexts):
            raise ValueError(f"context: {len(contexts)} of them for {len(questions)} questions; expected: as many")
        return [found for some in chunks(zip(questions, contexts, strict=True)) for found in self._answers(some)]

    def _answers(self, pairs: Sequence[tuple[str, str]]) -> list[FoundAnswer]:
        windows = [self._windows(*pair) for pair in pairs]
        outputs = iter(self.outputs([window for rows in windows for window in rows]))
        return [
            self._best(context, rows, [next(outputs) for _ in rows])
            for (_, context), rows in zip(pairs, windows, strict=True)
        ]

    def _windows(self, question: str, context: str) -> list[Encoding]:
        for name, text in (("question", question), ("context", context)):
            if not is_text(text):
                raise ValueError(f"{name}: {repr(text)[:60]}; expected: a text, without lone surrogates")
        question = shortened(question, self.max_length // 2, self._offsets)
        first = self.reader.read((context, question) if self._context_first else (question, context))
        return [first, *first.overflowing]

    def _offsets(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self.reader.whole.encode(text, add_special_tokens=False).offsets
        return offsets

    def _best(self, context: str, windows: Sequence[Encoding], outputs: Sequence[NDArray[np.float32]]) -> FoundAnswer:
        places, reading = without_space(context), self.artefact.reading
        longest = reading.max_answer_length or _ANSWER_LENGTH
        offsets = [context_offsets(window, places, self._context_first) for window in windows]
        found = find_answers(outputs, [{"example": 0, "offsets": own} for own in offsets], 1, longest)[0]
        threshold = reading.no_answer_threshold
        sizes = [_log_sums(logits, own) for logits, own in zip(outputs, offsets, strict=True)]
        if not found.spans or (threshold is not None and found.margin > threshold):
            firsts = [float(np.sum(logits[0], dtype=np.float64)) for logits in outputs]
            least = min(first - size for first, size in zip(firsts, sizes, strict=True))
            return FoundAnswer(score=float(np.exp(least)), start=0, end=0, answer="")
        best = found.spans[0]
        window = next(
            number
            for number, (logits, own) in enumerate(zip(outputs, offsets, strict=True))
            if best in best_spans(logits, own, 1, longest)
        )
        score = float(np.exp(best.score - sizes[window]))
        return FoundAnswer(score=score, start=best.start, end=best.end, answer=context[best.start : best.end])


def _log_sums(logits: NDArray[np.float32], offsets: NDArray[np.int64]) -> float:
    """Return the sum of the logarithms of what normalises starts and ends of a window, over what may be an answer."""
    counted = offsets[:, 1] > 0
    counted[0] = True  # [CLS], which says that there is no answer
    exact = logits[counted].astype(np.float64)
    largest = exact.max(axis=0)
    return float((largest + np.log(np.exp(exact - largest).sum(axis=0))).sum())
