"""Vectors given out as int8 and bits, and how well they find texts, by hand and by other libraries."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from edgemin_hf.runtime.vectors import PRECISIONS, as_bits, as_int8, cosines, vector_bytes
from edgemin_hf.tasks.retrieval import ndcg, ranked, recall_of


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_int8_vectors_have_the_cosines_of_the_floats_to_rounding():
    ones, others = random(0, 50, 64), random(1, 50, 64)
    assert np.abs(as_int8(ones)).max() == 127
    exact = PRECISIONS["float32"][1](ones, others)
    by_hand = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(ones, others, strict=True)]
    np.testing.assert_allclose(exact, by_hand, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(PRECISIONS["int8"][1](ones, others), exact, atol=0.005)
    np.testing.assert_array_equal(as_int8(1000 * ones), as_int8(ones))
    assert not as_int8(np.zeros((2, 4), np.float32)).any()


@pytest.mark.parametrize("width", [64, 20])
def test_bits_have_the_cosines_of_the_signs(width):
    ones, others = random(0, 50, width), random(1, 50, width)
    signs = [np.where(vectors > 0, 1, -1) for vectors in (ones, others)]
    np.testing.assert_allclose(PRECISIONS["bits"][1](ones, others), cosines(*signs), atol=1e-12)
    assert as_bits(ones).shape == (50, vector_bytes(width, "bits"))


def test_bits_are_those_of_sentence_transformers():
    library = pytest.importorskip("sentence_transformers")
    vectors = random(0, 5, 64)
    found = library.quantize_embeddings(vectors, precision="ubinary")
    np.testing.assert_array_equal(found, as_bits(vectors))


def test_the_nearest_come_first():
    queries, corpus = random(0, 300, 8), random(1, 20, 8)
    found = ranked(queries, corpus, 5)
    for row in (0, 299):
        scores = [cosines(queries[row : row + 1], corpus[text : text + 1])[0] for text in range(20)]
        assert found[row].tolist() == sorted(range(20), key=lambda text: -scores[text])[:5]
    assert ranked(queries, corpus, 50).shape == (300, 20)
    np.testing.assert_array_equal(recall_of(found, found), np.ones(300))


def test_of_equal_cosines_the_first_row_comes_first():
    generator = np.random.default_rng(0)
    queries, corpus = random(0, 300, 4), generator.integers(-1, 2, (500, 4)).astype(np.float32)
    scores = [cosines(np.repeat(query[None], 500, 0), corpus).round(5) for query in queries[:5]]
    found = ranked(queries, corpus, 90)
    for row, own in zip(found, scores, strict=False):
        np.testing.assert_array_equal(own[row], np.sort(own)[::-1][:90])
    copies = ranked(queries, np.repeat(corpus[:1], 40, 0), 7)
    np.testing.assert_array_equal(copies, np.tile(np.arange(7), (300, 1)))


def test_ndcg_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    queries, corpus = random(0, 6, 8), random(1, 30, 8)
    relevance = generator.integers(0, 4, (6, 30)).astype(float)
    ids, texts = [f"q{i}" for i in range(6)], [f"d{i}" for i in range(30)]
    judged = {
        query: {text: value for text, value in zip(texts, row, strict=True) if value}
        for query, row in zip(ids, relevance, strict=True)
    }
    scores = np.array([cosines(np.repeat(query[None], 30, 0), corpus) for query in queries])
    expected = [ndcg_score(truth[None], score[None], k=10) for truth, score in zip(relevance, scores, strict=True)]
    np.testing.assert_allclose(ndcg(ranked(queries, corpus, 10), ids, texts, judged), expected, rtol=1e-9)
