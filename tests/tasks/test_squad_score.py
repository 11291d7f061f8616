"""Cases by hand, of what SQuAD's own scripts (evaluate-v1.1.py, evaluate-v2.0.py) give."""

import pytest

from edgemin_hf.tasks.squad_score import exact_match, f1, normalized


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles", "beatles"),
        ("a  an the", ""),
        ("theatre another", "theatre another"),
        ("U.S.A.", "usa"),
        ("mid-1980s", "mid1980s"),
        ("a-team", "ateam"),  # punctuation goes before articles do
        ("\tone\u00a0two\n", "one two"),
        ("“The” café", "“ ” café"),  # no ASCII: those quotes stay
        ("$1,000", "1000"),
        ("Über DIE", "über die"),
    ],
)
def test_normalisation(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "words"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("the denver broncos!", ["Denver Broncos"], 1, 1),
        ("Broncos", ["Denver Broncos"], 0, 2 / 3),  # precision 1, recall 1/2
        ("Denver Broncos of Colorado", ["Denver Broncos"], 0, 2 / 3),  # precision 1/2, recall 1
        ("Broncos", ["Denver Broncos", "The Broncos", "Panthers"], 1, 1),
        ("in the town hall", ["the hall of the town"], 0, 2 * 2 / (3 + 3)),  # order counts for nothing
        ("to be to be", ["to be"], 0, 2 * 2 / (4 + 2)),  # a word counts as often as both have it
        ("gold", ["silver"], 0, 0),
        ("", ["gold"], 0, 0),
        ("", [], 1, 1),
        ("gold", [], 0, 0),
        ("the", [], 1, 1),  # no words left: as the script of v2.0 has it
        ("the", ["a"], 1, 1),
        ("gold", ["the", "gold"], 1, 1),
    ],
)
def test_scores(prediction, references, exact, words):
    assert exact_match(prediction, references) == exact
    assert f1(prediction, references) == pytest.approx(words)
