import re

import numpy as np
import pytest

from edgemin_hf.data.perturbation import PERTURBATIONS, with_typos

WORDS = ["please", "tell", "me", "why", "the", "card", "that", "I", "ordered", "is", "not", "here", "ünïcödé", "2nd"]


def texts(count=400):
    generator = np.random.default_rng(0)
    return [" ".join(generator.choice(WORDS, 12)) for _ in range(count)]


def one_typo(word, other):
    """Whether a word became another by two letters swapped, one dropped, or one twice."""
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)}
    dropped = {word[:i] + word[i + 1 :] for i in range(len(word))}
    doubled = {word[: i + 1] + word[i:] for i in range(len(word))}
    return [other in those for those in (swapped, dropped, doubled)]


def test_a_tenth_of_the_words_gets_one_typo_of_each_kind():
    pairs = [pair for text in texts() for pair in zip(text.split(), with_typos(text).split(), strict=True)]
    letters = [pair for pair in pairs if re.fullmatch(r"[^\W\d_]{2,}", pair[0])]
    changed = [pair for pair in letters if pair[0] != pair[1]]
    assert 0.08 < len(changed) / len(letters) < 0.12
    kinds = np.array([one_typo(*pair) for pair in changed])
    assert kinds.any(axis=1).all()
    assert (kinds.sum(axis=0) > len(changed) / 5).all()
    assert all(word == other for word, other in pairs if word == "I")


def test_two_letters_that_are_alike_are_not_swapped():
    words = [text.translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "s" * 26)) for text in texts()]
    pairs = [pair for text in words for pair in zip(text.split(), with_typos(text).split(), strict=True)]
    letters = [pair for pair in pairs if re.fullmatch(r"s{2,}", pair[0])]
    assert 0.08 < sum(word != other for word, other in letters) / len(letters) < 0.12


def test_typos_follow_from_the_text_alone():
    assert [with_typos(text) for text in texts(20)] == [with_typos(text) for text in reversed(texts(20))][::-1]
    assert with_typos("") == ""
    assert with_typos("a 1 !? \n\t") == "a 1 !? \n\t"


@pytest.mark.parametrize(("name", "expected"), [("in lower case", "where is ßs"), ("in upper case", "WHERE IS SSS")])
def test_case_is_pythons(name, expected):
    assert PERTURBATIONS[name]("Where is ßs") == expected
