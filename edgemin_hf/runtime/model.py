"""What models of all tasks have in common: many texts at once, threads, pickles."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from edgemin_hf.runtime.artefact import Artefact, GraphFile
from edgemin_hf.runtime.cutting import Text
from edgemin_hf.runtime.graph import Graph
from edgemin_hf.runtime.reader import Reader, Strategy

METHODS = ("predict", "predict_proba", "entities", "answer", "encode")
"""What models of some tasks can do."""
BATCH = 16
"""Texts of a pass, where there are many."""
_AT_ONCE = 1024
"""Texts that are tokenised, sorted by length and answered together: memory does not grow with how many there are."""
_SURROGATE = re.compile("[\ud800-\udfff]")
Answer = TypeVar("Answer")


class Model:
    """A model that is ready to answer; several threads may ask it at once, and it can be pickled (it is loaded again).

    Args:
        artefact: The artefact.
        file: The graph; None takes the best one that can be run.
        threads: Threads of a pass.
        providers: ONNX Runtime's execution providers; None takes the CPU's.

    Attributes:
        methods: What a model of the task can do, of `METHODS`.
        artefact: The artefact.
        file: The graph.
        graph: The graph in ONNX Runtime.
        reader: The tokenizer.

    Example:
        >>> from edgemin_hf.runtime import Classifier, Model
        >>> issubclass(Classifier, Model), Classifier.methods
        (True, ('predict', 'predict_proba'))
    """

    methods: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, artefact: Artefact, file: str | None = None, threads: int = 1, providers: Sequence[str] | None = None
    ) -> None:
        self.artefact = artefact
        self.file: GraphFile = artefact.graph(file)
        self._threads, self._providers = threads, providers
        path = artefact.folder / self.file.file
        if not path.is_file():
            raise ValueError(f"{path}: is missing; expected: a file, which the manifest lists")
        self.graph = Graph(path, threads, providers)
        self.reader = self.reader_for(self.max_length)

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[object, ...]]:
        return type(self), (self.artefact, self.file.file, self._threads, self._providers)

    def __getattr__(self, name: str) -> Any:
        if name in METHODS:
            task, able = self.artefact.task, ", ".join(self.methods)
            raise AttributeError(f"{name}: a model for {task} has none; allowed: {able}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def task(self) -> str:
        """The task, as a recipe has it."""
        return self.artefact.task

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels, in the order of their numbers."""
        return self.artefact.labels

    @property
    def max_length(self) -> int:
        """Tokens after which a text is cut, or of a window: the artefact's, or those of a graph of one shape."""
        own = self.artefact.max_length
        return own if self.file.shape is None else min(own, self.file.shape[1])

    def reader_for(self, max_length: int, stride: int = 0, strategy: Strategy = "longest_first") -> Reader:
        """Return the tokenizer, with a length after which it cuts."""
        config = self.artefact.tokenizer_config
        listed = config.get("model_input_names")
        return Reader(
            self.artefact.folder / "tokenizer.json",
            min(max_length, self.file.shape[1]) if self.file.shape else max_length,
            stride=stride,
            strategy=strategy,
            cuts_left=config.get("truncation_side") == "left",
            pad=int(self.artefact.config.get("pad_token_id") or 0),
            token_types=listed is None or "token_type_ids" in listed,
        )

    def output(self, encoding: Encoding) -> NDArray[np.float32]:
        """Return what the graph's head gives for one tokenised text, float32 (width,) or (length, width)."""
        if self.file.shape is not None:
            return self.outputs([encoding])[0]
        found: NDArray[np.float32] = self.graph.run(self.graph.feed(self.reader.arrays(encoding)))[0]
        return found

    def outputs(self, encodings: Sequence[Encoding]) -> list[NDArray[np.float32]]:
        """Return the same for many, in their order, without what padding gives: they run sorted by length."""
        found: list[NDArray[np.float32] | None] = [None] * len(encodings)
        order = sorted(range(len(encodings)), key=lambda number: len(encodings[number]))
        shape = self.file.shape
        size = BATCH if shape is None else shape[0]
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            rows = self.graph.run(self.graph.feed(self.reader.batch([encodings[number] for number in numbers], shape)))
            for number, row in zip(numbers, rows, strict=shape is None):
                found[number] = row if row.ndim == 1 else row[: len(encodings[number])]
        return [row for row in found if row is not None]

    def _answered(
        self, texts: Text | Iterable[Text], width: int, answers: Callable[[NDArray[np.float32]], NDArray[Any]]
    ) -> NDArray[Any]:
        """Return what is made of the outputs of a text (width,) or of many (texts, width), in an array of its own."""
        texts, one = listed(texts)
        self._check(texts)
        if one:
            found: NDArray[Any] = answers(self.output(self.reader.read(texts[0]))[None])[0]
            return found
        rows = [answers(np.stack(self.outputs(self.reader.read_all(some)))) for some in chunks(texts)]
        return np.concatenate(rows) if rows else answers(np.zeros((0, width), np.float32))

    def _check(self, texts: Sequence[Text]) -> None:
        """Check that texts are pairs where the task is one of pairs, and only there."""
        columns = self.artefact.reading.columns
        for text in texts if columns else ():
            if isinstance(text, str) != (len(columns) == 1):
                wanted = f"pairs of {columns[0]} and {columns[1]}" if len(columns) == 2 else "texts, not pairs"
                raise ValueError(f"texts: {str(text)[:60]!r}; expected: {wanted}")


def listed(texts: Text | Iterable[Text]) -> tuple[list[Text], bool]:
    """Return texts or pairs as a list, and whether it was one alone: a string, or a tuple of two.

    Raises:
        ValueError: If one is neither a text nor a pair.
    """
    if isinstance(texts, str):
        return [_text(texts)], True
    if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, str) for part in texts):
        return [_text(texts)], True
    if not isinstance(texts, Iterable):
        raise ValueError(f"texts: {texts!r}; expected: a text, a pair of texts as a tuple, or many of them")
    return [_text(text) for text in texts], False


def listed_texts(texts: str | Iterable[str]) -> tuple[list[str], bool]:
    """Return texts as a list, and whether it was one alone, of a task that takes no pairs.

    Raises:
        ValueError: If one is no text.
    """
    found, one = listed(texts)
    rows = [text for text in found if isinstance(text, str)]
    if len(rows) < len(found):
        wrong = next(text for text in found if not isinstance(text, str))
        raise ValueError(f"texts: {wrong!r}; expected: texts, not pairs")
    return rows, one


def _text(text: object) -> Text:
    if is_text(text):
        return text
    if isinstance(text, list | tuple) and len(text) == 2 and all(map(is_text, text)):
        return text[0], text[1]
    told = "texts, or pairs of texts, without lone surrogates"
    raise ValueError(f"texts: {str(text)[:60]!r} among them; expected: {told}")


def is_text(text: object) -> TypeGuard[str]:
    """Return whether something is a text that a tokenizer takes, which has no lone surrogates."""
    return isinstance(text, str) and (text.isascii() or _SURROGATE.search(text) is None)


def chunks(items: Iterable[Answer], size: int = _AT_ONCE) -> Iterator[list[Answer]]:
    """Yield some items at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some
