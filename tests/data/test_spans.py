import pytest

from edgemin_hf.data.spans import tagged_words, words_of


def span(start, end, label="x"):
    return {"start": start, "end": end, "label": label}


@pytest.mark.parametrize(("text", "words"), [
    ("", []),
    ("  New\tYork. ", ["New", "York", "."]),
    ("Zoë's e\u0301tude", ["Zoë", "'", "s", "e\u0301tude"]),
    ("हिन्दी है", ["हिन्दी", "है"]),
    ("ज्\u200dया", ["ज्\u200dया"]),
    ("@user_1: 3.5€ 😂", ["@", "user_1", ":", "3", ".", "5", "€", "😂"]),
])  # fmt: skip
def test_words_are_letters_with_their_marks(text, words):
    assert [text[start:end] for start, end in words_of(text)] == words


def test_spans_become_tags_of_words():
    text = "Ann Lee, of New York"
    words, tags = tagged_words(text, [span(12, 20, "city"), span(0, 7, "person")])
    assert words == ["Ann", "Lee", ",", "of", "New", "York"]
    assert tags == ["B-person", "I-person", "O", "O", "B-city", "I-city"]
    assert tagged_words(text, []) == (words, ["O"] * 6)
    assert tagged_words("a b", [span(0, 1), span(2, 3)])[1] == ["B-x", "B-x"]  # side by side, and two


@pytest.mark.parametrize(("text", "spans", "message"), [
    ("New York", [span(0, 9)], r"span 0 to 9; allowed: within the 8 characters of its text, not empty"),
    ("New York", [span(-1, 3)], r"span -1 to 3; allowed"),
    ("New York", [span(3, 3)], r"span 3 to 3; allowed"),
    ("New York", [span(0, 8), span(4, 8)], r"span 4 to 8 \('York'\), which overlaps 0 to 8 \('New York'\); allowed"),
    ("New York", [span(1, 8)], r"span 1 to 8 \('ew York'\), which cuts 'New'; allowed: whole words"),
    ("e\u0301tude", [span(0, 1)], r"which cuts 'e\u0301tude'; allowed: whole words"),
    ("New York", [span(3, 4)], r"span 3 to 4 \(' '\), which holds no word; allowed"),
    ("New York", [{"start": "0", "end": 3, "label": "x"}], r"span .*; expected: \{start, end, label\}, two numbers"),
    ("New York", [span(0, 3, "")], r"span .*; expected: \{start, end, label\}"),
    ("New York", [[0, 3, "x"]], r"span \[0, 3, 'x'\]; expected"),
    ("New York", "none", r"spans 'none'; expected: a list of \{start, end, label\}"),
    ("New \ud83d", [], r"half a character"),
])  # fmt: skip
def test_what_is_no_span_is_one_line(text, spans, message):
    with pytest.raises(ValueError, match=message):
        tagged_words(text, spans)
