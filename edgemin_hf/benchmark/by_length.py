"""The latency of a whole call by the length of its text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np

from edgemin_hf.benchmark.measure import measure_latency
from edgemin_hf.benchmark.rows import LengthLatency
from edgemin_hf.benchmark.runners import Inputs
from edgemin_hf.benchmark.whole_call import CallRunner
from edgemin_hf.data.tables import Text
from edgemin_hf.runtime.answers import Answerer
from edgemin_hf.runtime.model import Model
from edgemin_hf.runtime.one_call import runtime_call

LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
_TEXTS = 10
"""Texts of a length."""


def latency_by_length(model: Model, texts: Sequence[Text], rounds: int) -> tuple[LengthLatency, ...]:
    """Time whole calls on texts of 8, 16, 32, ... tokens, to the most that the model reads, 1,024 at most; in turns.

    Args:
        model: The model.
        texts: Texts, or pairs, of which texts of each length are made: one after the other, cut to the length.
        rounds: Number of counted rounds.

    Returns:
        The latencies by the texts' tokens, special ones included, the shortest first.
    """
    most = model.max_length
    lengths = sorted({length for length in LENGTHS if length < most} | {min(most, LENGTHS[-1])})
    made = {length: list(_texts_of(model, texts, length)) for length in lengths}
    asked = {length: [text for text, _ in some] for length, some in made.items() if some}
    runners = {length: CallRunner(runtime_call(model)) for length in asked}
    inputs = {length: cast(Sequence[Inputs], some) for length, some in asked.items()}
    times = measure_latency(runners, inputs, rounds, "Whole calls by length")
    return tuple(
        LengthLatency(int(np.median([tokens for _, tokens in made[length]])), *np.percentile(ms, (50, 95)).tolist())
        for length, ms in times.items()
    )


def _texts_of(model: Model, texts: Sequence[Text], length: int) -> Iterator[tuple[Text, int]]:
    """Yield texts of about a number of tokens, each with the tokens that it has."""
    whole, ask = model.reader.whole, _asker(model, texts)
    own = _tokens(model, ask(""))
    wanted = length - own
    pieces = [text if isinstance(text, str) else text[1] for text in texts]
    found, before = whole.encode(" ".join(pieces), add_special_tokens=False), 0
    while len(found) < wanted:
        if len(found) <= before:
            return  # more text makes no more tokens: there is none, or all of it is one unknown word
        before, pieces = len(found), 2 * pieces
        found = whole.encode(" ".join(pieces), add_special_tokens=False)
    joined = " ".join(pieces)
    for first in np.linspace(0, max(len(found) - wanted, 0), _TEXTS if wanted > 0 else 0).round().astype(int):
        begin, end = found.offsets[first][0], found.offsets[first + wanted - 1][1]
        text = ask(joined[begin:end])
        yield text, min(_tokens(model, text), length)


def _asker(model: Model, texts: Sequence[Text]) -> Callable[[str], Text]:
    """Return what makes a text or a pair that the model is asked of a piece: it stands first, or after a question."""
    if not isinstance(model, Answerer):
        pairs = len(model.artefact.reading.columns) == 2  # as `runtime_call` asks such a model
        return lambda piece: (piece, "") if pairs else piece
    question = texts[0] if isinstance(texts[0], str) else texts[0][0]
    return lambda piece: (question, piece)


def _tokens(model: Model, text: Text) -> int:
    sides = (text,) if isinstance(text, str) else text
    return len(model.reader.whole.encode(*sides))
