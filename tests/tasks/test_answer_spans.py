import numpy as np
import pytest
from numpy.testing import assert_allclose

from edgemin_hf.runtime.answer_spans import Found, Span, best_spans, find_answers
from edgemin_hf.tasks.metrics.no_answer import best_threshold


def by_hand(logits, offsets, count, max_length):
    """All spans, one by one."""
    places = [i for i, (_, end) in enumerate(offsets) if end > 0]
    spans = [
        (offsets[i][0], offsets[j][1], logits[i][0] + logits[j][1])
        for i in places
        for j in places
        if i <= j < i + max_length and offsets[j][1] > offsets[i][0]
    ]
    return sorted(spans, key=lambda span: -span[2])[:count]


def window(tokens, outside=(3, 1), seed=0):
    """A context's tokens of three characters each, after a question and before [SEP], with random logits."""
    generator = np.random.default_rng(seed)
    inside = [(4 * i, 4 * i + 3) for i in range(tokens)]
    offsets = np.array([(0, 0)] * outside[0] + inside + [(0, 0)] * outside[1])
    return generator.normal(size=(len(offsets), 2)), offsets


@pytest.mark.parametrize("max_length", [1, 3, 30])
@pytest.mark.parametrize("tokens", [1, 2, 17])
@pytest.mark.parametrize("outside", [(3, 1), (1, 5), (0, 0)])
def test_spans_are_the_best_of_all(tokens, max_length, outside):
    logits, offsets = window(tokens, outside)
    found = best_spans(logits, offsets, 20, max_length)
    expected = by_hand(logits, offsets, 20, max_length)
    assert [(span.start, span.end) for span in found] == [(start, end) for start, end, _ in expected]
    assert_allclose([span.score for span in found], [score for *_, score in expected])


def test_a_window_without_context_has_no_span():
    assert best_spans(np.ones((4, 2)), np.zeros((4, 2), dtype=int), 20, 30) == []


def test_white_space_is_no_answer_but_may_lie_in_one():
    offsets = np.array([(0, 0), (0, 2), (5, 2), (5, 7)])  # "in   June": between them a token of blanks
    logits = np.array([[0, 0], [1, 0], [9, 9], [0, 2]])
    found = [(span.start, span.end) for span in best_spans(logits, offsets, 20, 30)]
    assert found[0] == (5, 7)  # from the blanks to the word, which is the word
    assert (5, 2) not in found
    assert (0, 7) in found


def test_half_precision_counts_in_full():
    logits = np.array([[0, 0], [2048, 0], [0, 1]], dtype=np.float16)
    assert best_spans(logits, np.array([(0, 0), (0, 1), (2, 3)]), 1, 30)[0].score == 2049


def test_windows_of_a_question_are_searched_together():
    offsets = [[(0, 0), (0, 2), (3, 5)], [(0, 0), (3, 5), (6, 8)], [(0, 0), (0, 2)]]
    windows = [{"example": n, "offsets": own} for n, own in zip((4, 4, 7), offsets, strict=True)]
    outputs = [np.array(rows) for rows in ([[3, 3], [1, 0], [2, 2]], [[1, 1], [3, 3], [0, 4]], [[0, 5], [1, 1]])]
    first, second = find_answers(outputs, windows, 3, 30)
    assert first.spans == [Span(3, 8, 7), Span(3, 5, 6), Span(6, 8, 4)]  # of (3, 5), in both, the better score
    assert first.no_answer == 2
    assert first.margin == -5
    assert second == Found([Span(0, 2, 2)], 5)


def test_no_span_is_no_answer():
    assert find_answers([np.ones((1, 2))], [{"example": 0, "offsets": [(0, 0)]}], 20, 30)[0].margin == np.inf


def by_trial(margins, gains, answerable):
    """The best mean score of all thresholds."""
    trials = [-np.inf, *margins]
    return max(np.where(margins > t, ~answerable, np.where(answerable, gains, 0)).mean() for t in trials)


def test_threshold_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for questions in (1, 2, 30):
        for _ in range(20):
            margins = generator.integers(-4, 5, questions).astype(float)  # some are equal
            answerable = generator.random(questions) < 0.6
            gains = np.where(answerable, generator.random(questions), 0)
            threshold = best_threshold(margins, gains, answerable)
            score = np.where(margins > threshold, ~answerable, np.where(answerable, gains, 0)).mean()
            assert score == pytest.approx(by_trial(margins, gains, answerable))


def test_threshold_where_it_is_best_never_to_answer():
    assert best_threshold(np.array([1.0, 2.0]), np.zeros(2), np.array([False, False])) < 1
    assert best_threshold(np.array([1.0, np.inf]), np.ones(2), np.array([True, True])) == 1
