"""The commands that need no factory: `edgemin predict` and `edgemin verify`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemin_hf.runtime.answers import Answerer
from edgemin_hf.runtime.classifiers import Classifier, MultiLabelClassifier, Regressor
from edgemin_hf.runtime.cutting import Text
from edgemin_hf.runtime.embeddings import Embedder
from edgemin_hf.runtime.entities import Tagger
from edgemin_hf.runtime.loading import load
from edgemin_hf.runtime.model import Model, chunks
from edgemin_hf.utils.delimited import check_utf8, rows_of

_LINES = (".txt", "")
_ANSWERED = 256
"""Rows that are answered together."""


def predict(options: argparse.Namespace) -> None:
    """Print what a model says of texts, a JSON object a line.

    Raises:
        ValueError: If the artefact or the texts will not do.
    """
    if (options.text is None) == (options.file is None):
        raise ValueError("--text or FILE: neither or both; allowed: one of them")
    model = _loaded(options, options.graph)
    columns = _columns(model, options.columns)
    if options.text is not None:
        rows: Iterable[Text] = [_line(text, columns, f"--text {text}") for text in options.text]
    else:
        rows = read_texts(options.file, columns)
    try:
        # A line of the standard input is answered as it comes.
        for some in chunks(rows, 1 if options.file == "-" else _ANSWERED):
            for answer in answers(model, some):
                print(json.dumps(answer, ensure_ascii=False))
            sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as `head`, wants no more; nor is anything to be written at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def verify(options: argparse.Namespace) -> None:
    """Check that each graph that ONNX Runtime is new enough for, or one, computes here what it should, and say so.

    Raises:
        ValueError: If the artefact will not do.
        VerificationError: If a graph computes something else.
    """
    from edgemin_hf.runtime.verification import verify as difference_of

    def check(model: Model) -> None:
        difference = difference_of(model)
        print(f"{model.file.file}: computes what the manifest expects (differs by {difference:.1e} of its size)")

    model = _loaded(options, options.graph)
    check(model)
    for graph in model.artefact.graphs if options.graph is None else ():
        if graph.runs and graph != model.file:
            check(_loaded(options, graph.file))


def _loaded(options: argparse.Namespace, file: str | None) -> Model:
    return load(options.artefact, file, options.threads, revision=options.revision)


def _columns(model: Model, asked: Sequence[str] | None) -> Sequence[str]:
    """Return the columns of texts: those that are asked for, or the task's own."""
    known = model.artefact.reading.columns
    own = known or (("question", "context") if isinstance(model, Answerer) else ("text",))
    # Whether an earlier version's classifier or regressor takes pairs is not told.
    allowed = {1, 2} if not known and "predict" in model.methods else {len(own)}
    if asked is not None and len(asked) not in allowed:
        raise ValueError(f"--columns {' '.join(asked)}; allowed: {len(own)}, as the task's {' and '.join(own)}")
    return asked or own


def answers(model: Model, texts: Sequence[Text]) -> Iterator[Mapping[str, Any]]:
    """Yield what a model says of each text, as JSON has it.

    Args:
        model: The model.
        texts: Texts, or pairs: of a model that answers questions each with its context.

    Yields:
        Of a label `label` and `score`; of any number of them `labels` and `scores`; `score`; `entities`; what
        `Answerer.answer` gives; or `vector`.
    """
    match model:
        case Classifier():
            likely = model.predict_proba(texts)
            for row, best in zip(likely, likely.argmax(axis=1), strict=True):
                yield {"label": model.labels[best], "score": float(row[best])}
        case MultiLabelClassifier():
            for row in model.predict_proba(texts):
                told = np.flatnonzero(row >= model.threshold)
                yield {
                    "labels": [model.labels[place] for place in told],
                    "scores": [float(row[place]) for place in told],
                }
        case Regressor():
            yield from ({"score": float(score)} for score in model.predict(texts))
        case Tagger():
            yield from ({"entities": found} for found in model.entities(map(str, texts)))
        case Answerer():
            questions, contexts = zip(*texts, strict=True)
            found = model.answer(questions, contexts)
            yield from found if isinstance(found, list) else [found]
        case Embedder():
            yield from ({"vector": vector.tolist()} for vector in model.encode(map(str, texts)))


def read_texts(file: str, columns: Sequence[str]) -> Iterator[Text]:
    """Yield the texts or pairs of a file.

    Args:
        file: A text file with a text a line, or a pair with a tab between; a table (.jsonl, .csv, .tsv); or "-", lines
            of the standard input.
        columns: Names of the columns that hold the texts in a table: one, or two of pairs.

    Raises:
        ValueError: If there is no such file, or a line or row has no such texts; one line.
    """
    path = Path(file)
    if file != "-" and not path.is_file():
        raise ValueError(f"FILE: {file}, which is no file; allowed: .txt, .jsonl, .csv, .tsv, or - for standard input")
    if file == "-" or path.suffix in _LINES:
        for number, line in enumerate(_standard_input() if file == "-" else _lines(path), start=1):
            yield _line(line.rstrip("\r\n"), columns, f"line {number} of {file}")
        return
    for number, row in enumerate(_rows(path), start=1):
        missing = next((name for name in columns if not isinstance(row.get(name), str)), None)
        if missing is not None:
            raise ValueError(f"row {number} of {file}: no text in column {missing!r}; its columns: {', '.join(row)}")
        texts = tuple(row[name] for name in columns)
        yield texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _line(line: str, columns: Sequence[str], place: str) -> Text:
    if len(columns) == 1:
        return line
    first, tab, second = line.partition("\t")
    if not tab:
        raise ValueError(f"{place}: no tab; expected: {columns[0]} and {columns[1]} with a tab between")
    return first, second


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix in (".csv", ".tsv"):
        yield from rows_of(path)
        return
    if path.suffix != ".jsonl":
        raise ValueError(f"FILE: {path}; allowed: .txt, .jsonl, .csv, .tsv, or - for standard input")
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} of {path}: no JSON object; expected: one a line")
        yield row


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file; a byte order mark is no part of the first."""
    check_utf8(path)
    with path.open(encoding="utf-8-sig") as file:
        yield from file


def _standard_input() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input: {error}; expected: UTF-8") from None
