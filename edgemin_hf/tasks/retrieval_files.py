"""A corpus, queries and judgements in files, as BEIR has them (Thakur et al. 2021, arXiv 2104.08663)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgemin_hf.data.tables import check_table, read_table, values_of
from edgemin_hf.tasks.retrieval import Judgements

_ID, _TEXT, _TITLE = "_id", "text", "title"
_QUERY, _FOUND, _SCORE = "query-id", "corpus-id", "score"


class Retrieval(NamedTuple):
    """Texts to find.

    Attributes:
        queries: Text of each query, by its id.
        corpus: Each text, with its title before it, by its id.
        judgements: How relevant texts are to queries; None where no file tells it.
    """

    queries: dict[str, str]
    corpus: dict[str, str]
    judgements: Judgements | None


def read_retrieval(corpus: Path, queries: Path, qrels: Path | None) -> Retrieval:
    """Read the files.

    Args:
        corpus: A table with the columns _id and text, and title where texts have one.
        queries: A table with the columns _id and text.
        qrels: A table with the columns query-id, corpus-id and score, if there is one.

    Raises:
        ValueError: If one can't be read, an id stands twice, or one that is judged is none of theirs; the message
            begins with the field's name.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from edgemin_hf.tasks.retrieval_files import read_retrieval
        >>> with TemporaryDirectory() as folder:
        ...     corpus, queries = Path(folder, "corpus.jsonl"), Path(folder, "queries.jsonl")
        ...     _ = corpus.write_text('{"_id": "d1", "title": "Cards", "text": "are plastic"}')
        ...     _ = queries.write_text('{"_id": "q1", "text": "what is a card"}')
        ...     read_retrieval(corpus, queries, None).corpus
        {'d1': 'Cards are plastic'}
    """
    found = Retrieval(_texts("queries_file", queries), _texts("corpus_file", corpus), None)
    return found if qrels is None else found._replace(judgements=_judgements(qrels, found))


def _texts(field: str, path: Path) -> dict[str, str]:
    try:
        check_table(path, _TEXT, label_column=_ID)
    except (ValueError, OSError) as error:
        raise ValueError(f"{field}: {error}") from None
    table = read_table(path)
    titles = values_of(table, _TITLE) if _TITLE in table.column_names else iter([""] * len(table))
    texts: dict[str, str] = {}
    for row, (key, title, text) in enumerate(
        zip(values_of(table, _ID), titles, values_of(table, _TEXT), strict=True), start=1
    ):
        if str(key) in texts:
            raise ValueError(f"{field}: _id {key!r} in row {row} of {path}, which stands there twice; expected: once")
        texts[str(key)] = f"{title or ''} {text}".strip()
    return texts


def _judgements(path: Path, of: Retrieval) -> dict[str, dict[str, float]]:
    try:
        check_table(path, label_column=_SCORE, scores=True)
        check_table(path, label_column=_QUERY)
        check_table(path, label_column=_FOUND)
    except (ValueError, OSError) as error:
        raise ValueError(f"qrels_file: {error}") from None
    table, judged = read_table(path), dict[str, dict[str, float]]()
    columns = (values_of(table, column) for column in (_QUERY, _FOUND, _SCORE))
    for row, (query, text, score) in enumerate(zip(*columns, strict=True), start=1):
        for column, key, known in ((_QUERY, query, of.queries), (_FOUND, text, of.corpus)):
            if str(key) not in known:
                file = "queries_file" if column == _QUERY else "corpus_file"
                raise ValueError(f"qrels_file: {column} {key!r} in row {row} of {path}; expected: an _id of {file}")
        judged.setdefault(str(query), {})[str(text)] = float(str(score))
    return judged
