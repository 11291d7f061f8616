"""A bag of words: tf-idf of words and of characters, and a linear model. What anybody has in seconds, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemin_hf.data.tables import Text
from edgemin_hf.rivals.base import Given, Made, folder_bytes, joined
from edgemin_hf.rivals.linear import Linear


def bag_of_words(given: Given, folder: Path) -> list[Made]:
    """Make it: words and pairs of words, 2 to 5 characters within words, sublinear counts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, dtype=np.float32),
    )
    model = Linear(features.fit_transform(joined(given.train)), given.labels, given.task.answer)

    def call(text: Text) -> NDArray[np.float32]:
        return model.scores(features.transform(joined([text])))

    parts = [part for _, part in features.transformer_list]
    vocabularies = [{term: int(number) for term, number in part.vocabulary_.items()} for part in parts]
    (folder / "vocabularies.json").write_text(json.dumps(vocabularies), encoding="utf-8")
    np.savez(folder / "idf.npz", *(part.idf_.astype(np.float32) for part in parts))
    model.save(folder / "linear.npz")
    scores = model.scores(features.transform(joined(given.test)))
    return [Made("bag of words (tf-idf, LinearSVC)", scores, folder_bytes(folder), call)]
