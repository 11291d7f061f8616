"""Sentences of documents, by the punctuation that ends them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
from pyarrow.parquet import ParquetFile, ParquetWriter

from edgemin_hf.data.raw_text import TextFiles
from edgemin_hf.data.sources import cached_file

# After . ! or ?, and a quotation mark or bracket that may close there, before what begins a sentence.
_NEXT = r"\s+(?=[\"'\u201c\u2018(\[]?[A-Z0-9])"
_END = re.compile(rf"(?<=[.!?]){_NEXT}|(?<=[.!?][\"'\u201d\u2019)\]]){_NEXT}")
_LEAST_WORDS = 3
_SCHEMA = pa.schema({"text": pa.string()})
_BATCH = 10_000


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a document of three words or more; lines that are broken anywhere are joined.

    An abbreviation before a capital letter ends one too, which does no harm to what learns of whatever it reads.

    Example:
        >>> from edgemin_hf.data.sentences import sentences_of
        >>> sentences_of('He came late. "Where is my card?" she asked. No. It costs 3.5 pounds.')
        ['He came late.', '"Where is my card?" she asked.', 'It costs 3.5 pounds.']
    """
    found = _END.split(" ".join(text.split()))
    return [sentence for sentence in found if len(sentence.split()) >= _LEAST_WORDS]


def sentences_in(path: Path) -> Iterator[str]:
    """Yield the sentences of the documents in a file (.txt, .txt.zst), which blank lines separate.

    They are looked for once, and lie in the Hub's cache after that.

    Raises:
        ValueError: If it can't be read.
    """
    documents = TextFiles([path])
    documents.check()
    key = ["sentences", _END.pattern, _LEAST_WORDS, *documents.fingerprint()]
    with ParquetFile(cached_file(key, "sentences.parquet", lambda file: _write(documents, file))) as found:
        for batch in found.iter_batches(_BATCH):
            yield from batch.column("text").to_pylist()


def _write(documents: TextFiles, file: Path) -> None:
    """Write the sentences of documents, a batch at a time."""
    sentences = (sentence for piece in documents.pieces() for sentence in sentences_of(piece.text))
    with ParquetWriter(file, _SCHEMA) as writer:
        while batch := list(islice(sentences, _BATCH)):
            writer.write_table(pa.table([batch], schema=_SCHEMA))
