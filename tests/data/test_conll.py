import pytest

from edgemin_hf.data.conll import read_conll


def read(tmp_path, text, name="rows.conll"):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return read_conll(tmp_path / name, "tokens", "tags")


def test_sentences_stand_between_blank_lines(tmp_path):
    table = read(tmp_path, "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n \nPeter NNP B-NP B-PER")
    assert table["tokens"][:] == [["EU", "rejects"], ["Peter"]]
    assert table["tags"][:] == [["B-ORG", "O"], ["B-PER"]]


def test_tabs_and_windows_lines_and_a_byte_order_mark(tmp_path):
    table = read(tmp_path, "\ufeffNew York\tB-LOC\r\nwaits\tO\r\n\r\n-DOCSTART-\tO\r\nZoë\tB-PER\r\n", "rows.txt")
    assert table["tokens"][:] == [["New York", "waits"], ["Zoë"]]
    assert table["tags"][:] == [["B-LOC", "O"], ["B-PER"]]


def test_a_changed_file_is_read_anew(tmp_path):
    assert len(read(tmp_path, "a O\n")) == 1
    assert len(read(tmp_path, "a O\n\nb O\n")) == 2


@pytest.mark.parametrize(("text", "message"), [
    ("EU B-ORG\nrejects\n", r"line 2 of .*, 'rejects'; expected: a word, and its tag after it"),
    ("\n\n-DOCSTART- O\n", r"which is empty; allowed: a file with sentences"),
])  # fmt: skip
def test_what_is_no_such_file_is_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="which is no file; allowed: an existing file"):
        read_conll(tmp_path / "none.conll", "tokens", "tags")
