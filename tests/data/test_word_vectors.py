import numpy as np
import pytest

from edgemin_hf.data.word_vectors import nearest_words

NAMES = [f"word{index}" for index in range(300)]


def write(path, vectors, names=NAMES, header=None):
    lines = [] if header is None else [header]
    lines += [" ".join([name, *(f"{x:.6f}" for x in vector)]) for name, vector in zip(names, vectors, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def by_formula(vectors, row, count):
    """Cosines in float64, one word at a time."""
    cosines = {
        NAMES[other]: vectors[row] @ vectors[other] / np.linalg.norm(vectors[row]) / np.linalg.norm(vectors[other])
        for other in range(len(vectors))
        if other != row
    }
    return sorted(cosines, key=lambda name: -cosines[name])[:count]


@pytest.mark.parametrize(("header", "step"), [(None, 3), ("300 12", 1)])  # 256 words are looked up together
def test_neighbours_are_those_of_the_largest_cosine(tmp_path, header, step):
    vectors = np.random.default_rng(0).normal(size=(300, 12)).round(6)
    vectors *= np.arange(1, 301)[:, None]  # lengths must not matter
    file = write(tmp_path / "vectors.txt", vectors, header=header)
    found = nearest_words(file, NAMES[::step], 7)
    assert found == {NAMES[row]: by_formula(vectors, row, 7) for row in range(0, 300, step)}


def test_words_are_found_as_they_are_else_in_lower_case(tmp_path):
    vectors = np.eye(4)
    vectors[3, 0] = 0.5
    file = write(tmp_path / "vectors.txt", vectors, ["card", "Card", "money", "lost"])
    found = nearest_words(file, ["CARD", "Card", "unheard", "Lost"], 9)
    assert list(found) == ["CARD", "Card", "Lost"]
    assert found["CARD"][0] == "lost"
    assert set(found["Card"]) == {"card", "money", "lost"}
    assert found["Lost"][0] == "card"


def test_only_the_first_words_are_read(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("".join(f"word{index} 1 1\n" for index in range(100_010)))
    asked = ["word0", "word99999", "word100000", "word100009"]
    assert list(nearest_words(file, asked, 1)) == asked[:2]


def test_words_with_spaces_and_vectors_of_zeros_do_no_harm(tmp_path):
    file = tmp_path / "vectors.txt"
    file.write_text("card 1 0 0\n. . . 0 1 0\nmoney 1 1 0\nnothing 0 0 0\nmoney 5 5 5\n")
    assert nearest_words(file, ["card"], 5) == {"card": ["money", "nothing"]}
    assert set(nearest_words(file, ["nothing"], 1)) == {"nothing"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "vectors: .*, which is no file; allowed: a text file"),
        ("", "which holds none"),
        ("card 1 2 3\nmoney 1 2\n", "line 2 of .*; allowed: a word and 3 numbers"),
        ("card 1 2 3\nmoney 1 x 3\n", "line 2 of .*; allowed: a word and 3 numbers"),
        ("card\n", "line 1 of .*; allowed: a word and its numbers"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, message):
    file = tmp_path / "vectors.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message):
        nearest_words(file, ["card"], 3)
