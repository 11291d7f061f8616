"""What a sentence embedding is measured by beside its metric: shorter and smaller vectors, and texts that it finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, PreTrainedTokenizerBase

from edgemin_hf.benchmark.measure import ModelFile, predict
from edgemin_hf.benchmark.rows import Row
from edgemin_hf.benchmark.runners import load_runner
from edgemin_hf.data.tokenization import encode
from edgemin_hf.modeling.embedder import SentenceHead
from edgemin_hf.recipe.context import Context
from edgemin_hf.recipe.schema import Product
from edgemin_hf.runtime.vectors import Vectors
from edgemin_hf.tasks.base import Outputs
from edgemin_hf.tasks.given_out import GivenOut, given_out
from edgemin_hf.tasks.metrics import Answers
from edgemin_hf.tasks.retrieval import ndcg, ranked, recall_of
from edgemin_hf.tasks.sentence_embedding import SentenceEmbedding
from edgemin_hf.utils.records import Record

GIVEN_OUT = "given_out.json"
"""File of the vectors' widths and precisions, in the folder of `evaluate`."""
RETRIEVAL = "retrieval.json"
"""File of what was found, likewise."""


@dataclass(frozen=True)
class Found(Record):
    """How well one model finds texts.

    Attributes:
        model: Its name, as in `results.json`.
        queries: Number of queries.
        texts: Number of texts.
        k: How many texts are looked at.
        recall: The mean share of the k texts that the teacher ranks first which are among its own; None of what has no
            teacher beside it.
        ndcg: nDCG@10 by the judgements; None without these.
    """

    model: str
    queries: int
    texts: int
    k: int
    recall: float | None = None
    ndcg: float | None = None


def write_given_out(
    context: Context, task: SentenceEmbedding, vectors: Mapping[Row, Outputs], truth: Answers, folder: Path
) -> None:
    """Measure the student's vectors of the test pairs at each width and precision, and write `GIVEN_OUT`."""
    config = AutoConfig.from_pretrained(context.folder_with(Product.GRAPHS) / "student")
    widths = SentenceHead.of(config).widths(config)
    rows = [
        one.to_dict()
        for row, outputs in vectors.items()
        if row[:2] == ("student", "onnxruntime")
        for one in given_out("_".join(row), np.asarray(outputs), widths, truth, task.measure)
    ]
    (folder / GIVEN_OUT).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def read_given_out(folder: Path, model: str) -> list[GivenOut]:
    """Read those rows of one model."""
    rows = json.loads((folder / GIVEN_OUT).read_text(encoding="utf-8"))
    return [row for row in map(GivenOut.from_dict, rows) if row.model == model]


def write_retrieval(
    context: Context,
    task: SentenceEmbedding,
    files: Mapping[Row, ModelFile],
    tokenizers: Mapping[str, PreTrainedTokenizerBase],
    folder: Path,
) -> list[Found]:
    """Let the graphs find texts, where the task names some, and write `RETRIEVAL`.

    Args:
        context: The recipe at work.
        task: The task.
        files: The file of each row that is measured.
        tokenizers: By model.
        folder: The folder.

    Returns:
        What was found; nothing where the task names no texts.
    """
    given = task.retrieval(context.root)
    if given is None:
        return []
    vectors: dict[Row, tuple[Vectors, Vectors]] = {}
    for row in [row for row in files if row[1] == "onnxruntime"]:
        runner = load_runner(row[1], files[row].path, context.threads, task.auto_class, spinning=False)
        sides = []
        for name, texts in (("queries", given.queries), ("texts", given.corpus)):
            inputs = [_inputs(tokenizers[row[0]], task, text) for text in texts.values()]
            sides.append(np.asarray(predict(runner, inputs, f"Vectors of {name} by {' / '.join(row)}")))
        vectors[row] = (sides[0], sides[1])
    reference = vectors.get(("teacher", "onnxruntime", "fp32"))
    wanted = None if reference is None else ranked(*reference, task.retrieval_k)
    keys, ids = list(given.queries), list(given.corpus)
    rows = []
    for row, (queries, corpus) in vectors.items():
        recall = None if wanted is None else recall_of(ranked(queries, corpus, task.retrieval_k), wanted).mean()
        score = None
        if given.judgements is not None:
            judged = [place for place, key in enumerate(keys) if key in given.judgements]
            near = ranked(queries[judged], corpus, 10)
            score = float(ndcg(near, [keys[place] for place in judged], ids, given.judgements).mean())
        share = None if recall is None else float(recall)
        rows.append(Found("_".join(row), len(queries), len(corpus), task.retrieval_k, share, score))
    (folder / RETRIEVAL).write_text(json.dumps([row.to_dict() for row in rows], indent=2) + "\n", encoding="utf-8")
    return rows


def _inputs(tokenizer: PreTrainedTokenizerBase, task: SentenceEmbedding, text: str) -> dict[str, NDArray[np.int64]]:
    encoded = encode(tokenizer, [task.prompt + text], task.max_length, return_tensors="np")
    return {name: array.astype(np.int64) for name, array in encoded.items()}


def notes_on(rows: Sequence[Found]) -> tuple[str, ...]:
    """Return a line on what each model found."""
    told = []
    for row in rows:
        parts = [] if row.recall is None else [f"recall@{row.k} of the teacher's {row.recall:.4f}"]
        parts += [] if row.ndcg is None else [f"nDCG@10 {row.ndcg:.4f}"]
        told.append(f"{row.model.replace('_', ' / ')} {', '.join(parts)}")
    return tuple(told)
