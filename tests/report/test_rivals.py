from dataclasses import replace
from itertools import combinations

import pytest

from edgemin_hf.benchmark.rows import Latency
from edgemin_hf.report.rivals import how_to_read, in_words, rivals_table, rivals_text, verdict
from edgemin_hf.report.rivals_figure import draw_rivals
from edgemin_hf.rivals.compare import Ahead, Comparison, RivalRow
from tests.helpers.figures import boxes, parsed


def row(name, value, ahead=None, p50=1.0, size=10_000_000, seconds=None):
    latency = Latency(p50, 2 * p50, 3 * p50)
    return RivalRow(name, "accuracy", value, (value - 0.01, value + 0.01), size, latency, seconds, ahead)


STUDENT = row("student", 0.93, p50=0.6)


@pytest.mark.parametrize(
    ("ahead", "word"),
    [
        (Ahead(0.019, (0.008, 0.03)), "beats"),
        (Ahead(-0.019, (-0.03, -0.008)), "loses"),
        (Ahead(0.004, (-0.004, 0.012)), "not told apart"),
    ],
)
def test_the_numbers_write_the_verdict(ahead, word):
    [sentence] = verdict(Comparison((STUDENT, row("a bag", 0.91, ahead, p50=1.2, size=20_000_000, seconds=14.2))))
    assert word in sentence
    assert "a bag" in sentence
    assert f"{100 * ahead.ci95[0]:+.1f}, {100 * ahead.ci95[1]:+.1f}" in sentence
    assert "0.5 times its latency" in sentence
    assert ("14 s" in sentence) == (word == "not told apart")


def test_a_table_without_a_student_has_no_verdict():
    alone = Comparison((row("a bag", 0.91, seconds=600),))
    assert verdict(alone) == []
    assert rivals_table(alone).rows[0][-1] == "10.0 min"
    assert "a bag" in rivals_text(alone)


def test_the_caption_says_where_better_is_of_a_metric_of_ones_own_too():
    assert "up and to the left is better" in how_to_read(Comparison((STUDENT,)))
    own = replace(STUDENT, metric="mistakes", greater_is_better=False)
    found = Comparison.from_dict(Comparison((own,)).to_dict())
    assert "down and to the left is better" in how_to_read(found)


def test_what_was_left_out_is_told_last():
    found = Comparison((STUDENT, row("a bag", 0.91, Ahead(0.02, (0.01, 0.03)))), ("a rival without its package",))
    assert verdict(found)[1:] == ["Left out: a rival without its package."]
    assert "Left out" in rivals_text(found)


# As on BANKING77: marks lie close together, and one rival is faster while another is better.
CROWD = Comparison(
    (
        row("this student, INT8", 0.923, p50=0.631, size=10_400_000),
        row("bag of words (tf-idf, LinearSVC)", 0.91, Ahead(0.013, (0.004, 0.022)), 2.05, 13_900_000),
        row("model2vec, fine-tuned", 0.914, Ahead(0.009, (0.0, 0.017)), 0.266, 31_400_000),
        row("frozen encoder, linear head, fp32", 0.925, Ahead(-0.002, (-0.01, 0.006)), 6.11, 91_200_000),
        row("frozen encoder, linear head, INT8", 0.922, Ahead(0.001, (-0.007, 0.01)), 1.79, 23_700_000),
        row("student's shape, labels alone, INT8", 0.915, Ahead(0.008, (0.001, 0.015)), 0.83, 17_000_000),
        row("fine-tuned teacher in OpenVINO, INT8", 0.933, Ahead(-0.01, (-0.017, -0.003)), 1.3, 24_100_000),
        row("fine-tuned teacher, INT8", 0.928, Ahead(-0.005, (-0.012, 0.003)), 1.92, 23_700_000),
    )
)


def test_the_figure_names_every_row_and_nothing_covers_another():
    svg = draw_rivals(CROWD)
    assert svg == draw_rivals(CROWD)
    placed = boxes(svg)
    words = [text for text, *_ in placed]
    assert all(f"{one.name}, {one.size_bytes / 1e6:.0f} MB" in words for one in CROWD.rows)
    assert {"this student", "worse than it", "not told apart from it", "better than it"} <= set(words)
    left, right = 0.0, float(parsed(svg).get("viewBox").split()[2])
    assert all(left <= first and last <= right for _, first, last, _, _ in placed)
    for (_, a, b, top, bottom), (_, c, d, above, below) in combinations(placed, 2):
        assert b <= c or d <= a or bottom <= above or below <= top


def test_the_figure_is_told_in_words_to_who_can_not_see_it():
    told = in_words(CROWD)
    assert parsed(draw_rivals(CROWD)).get("aria-label") == told
    start, student, *_ = told.replace(". this", "; this").split("; ")
    assert start == "Accuracy against the latency of a whole call"
    assert student == "this student, INT8: 92.3% at 0.631 ms, 10.4 MB"
    assert all(one.name in told for one in CROWD.rows)


def test_a_figure_of_rivals_alone_has_no_student():
    alone = Comparison((row("a bag", 0.91, seconds=600), row("b", 0.9, p50=100.0)))
    assert "this student" not in [text for text, *_ in boxes(draw_rivals(alone))]
