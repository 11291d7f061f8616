"""Tables as people's programs write them: read as they are meant, or refused in one line."""

import json
import re

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from edgemin_hf.data.tables import check_table, notes_on, read_lines, read_sentences, read_table

ROWS = {"text": ["my card", "send it, please"], "label": ["card", "transfer"]}

READ = {
    "a byte order mark": ("rows.csv", b'\xef\xbb\xbftext,label\nmy card,card\n"send it, please",transfer\n'),
    "a mark in JSON": (
        "rows.jsonl",
        b'\xef\xbb\xbf{"text": "my card", "label": "card"}\n{"text": "send it, please", "label": "transfer"}\n',
    ),
    "an index": ("rows.csv", b',text,label\n0,my card,card\n1,"send it, please",transfer\n'),
    "separators after all": ("rows.csv", b'text,label,\nmy card,card,\n"send it, please",transfer,\n'),
    "separators after rows": ("rows.csv", b'text,label\nmy card,card,\n"send it, please",transfer,,\n'),
    "semicolons": ("rows.csv", b"text;label\nmy card;card\nsend it, please;transfer\n"),
    "tabs": ("rows.csv", b"text\tlabel\nmy card\tcard\nsend it, please\ttransfer\n"),
    "line ends of Windows": ("rows.csv", b'text,label\r\nmy card,card\r\n"send it, please",transfer\r\n'),
    "line ends of old": ("rows.tsv", b"text\tlabel\rmy card\tcard\rsend it, please\ttransfer\r"),
    "blank lines": ("rows.csv", b'text,label\n\nmy card,card\n\n"send it, please",transfer\n\n'),
    "spaces in the header": ("rows.csv", b'text , label\nmy card,card\n"send it, please",transfer\n'),
    "more columns": ("rows.tsv", b"id\ttext\tlabel\n1\tmy card\tcard\n2\tsend it, please\ttransfer\n"),
}


@pytest.mark.parametrize("case", READ)
def test_what_programs_write_is_read_as_it_is_meant(case, tmp_path):
    name, content = READ[case]
    (tmp_path / name).write_bytes(content)
    check_table(tmp_path / name, "text", label_column="label")
    table = read_table(tmp_path / name)
    assert {column: table[column][:] for column in ROWS} == ROWS
    assert all(column.strip() == column != "" for column in table.column_names)


REFUSED = {
    "more cells": ("rows.csv", b"text,label\nmy card,card\nsend it, please,transfer\n", r"line 3 of .*: 3 cell.*: 2"),
    "fewer cells": ("rows.csv", b"text,label,more\nmy card,card,1\nsend,transfer\n", r"line 3 of .*: 2 cell.*: 3"),
    "ragged tabs": ("rows.tsv", b'text\tlabel\n"my\tcard"\tcard\n', r"line 2 of .*: 3 cell.*quotes in .tsv are char"),
    "a name twice": ("rows.csv", b"text,label,label\na,x,1\n", "column 'label' of .*twice; expected: different"),
    "a key twice": ("rows.jsonl", b'{"text": "a", "text": "b", "label": "x"}\n', "rows.jsonl, which can't be read"),
    "an open quote": ("rows.csv", b'text,label\na,x\n"b,y\nc,z\n', r"line 3 of .*: a quote that is not closed"),
    "an odd quote": ("rows.csv", b'text,label\n"a" b,x\n', r"line 2 of .*: quotes that do not fit"),
    "a NUL": ("rows.csv", b"text,label\na\0c,x\n", r"line 2 of .*: a NUL character"),
    "UTF-16": ("rows.csv", "text,label\na,x\n".encode("utf-16"), "which is UTF-16; expected: UTF-8"),
    "UTF-16 in JSON": ("rows.jsonl", '{"text": "a"}\n'.encode("utf-16"), "which is UTF-16; expected: UTF-8"),
    "Latin-1": ("rows.csv", "text,label\na,x\ncafé,y\n".encode("latin-1"), r"line 3 of .*not UTF-8 \(byte 0xe9\)"),
    "Latin-1 in JSON": ("rows.jsonl", '{"text": "café", "label": "x"}\n'.encode("latin-1"), "line 1 of .*not UTF-8"),
    "no header": ("rows.csv", b"my card,card\nsend,transfer\n", "column 'text' of .*; allowed: my card, card"),
    "an empty label": ("rows.csv", b"text,label\na,x\nb,\n", "'' in column 'label', row 2 of .*; allowed: a label"),
    "a blank label": ("rows.csv", b"text,label\na,x\nb,  \n", "'  ' in column 'label', row 2 of .*: a label"),
    "a null": ("rows.jsonl", b'{"text": "a", "label": 1}\n{"text": "b", "label": null}\n', "None in column 'label'"),
    "a text that is missing": ("rows.jsonl", b'{"text": "a", "label": 1}\n{"label": 1}\n', "None in column 'text'"),
    "several types": (
        "rows.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b", "label": 1}\n', "1 in column 'label', row 2 .* one ",
    ),
    "no rows": ("rows.csv", b"text,label\n", "rows.csv, which is empty"),
    "an empty list": ("rows.json", b"[]", "rows.json, which is empty"),
    "no object": ("rows.jsonl", b'"a"\n', "rows.jsonl, which can't be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_misread_is_one_line(case, tmp_path):
    name, content, message = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        check_table(tmp_path / name, "text", label_column="label")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b"], "label": [1.0, float("nan")]}, "(nan|None) in column 'label', row 2"),
        ({"text": ["a", None], "label": [1, 2]}, "None in column 'text', row 2"),
        ({"text": ["a", "b"], "label": pd.to_datetime(["2020-01-01", "2020-01-02"])}, "datetime.* in column 'label'"),
        ({"text": [b"a", b"b"], "label": [1, 2]}, "b'a' in column 'text', row 1"),
    ],
)
def test_missing_and_odd_values_of_parquet_are_one_line(tmp_path, columns, message):
    pd.DataFrame(columns).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=message):
        check_table(tmp_path / "rows.parquet", "text", label_column="label")


def test_a_long_value_is_cut_in_the_message(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps({"text": {"0": "word " * 5_000}, "label": {"0": "x"}}))
    with pytest.raises(ValueError, match=r"in column 'text', row 1 of .*; allowed: text") as error:
        check_table(tmp_path / "rows.json", "text", label_column="label")
    assert len(str(error.value)) < 300


def test_floats_that_parquet_keeps_as_nan_are_no_labels(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "label": [float("nan")]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"nan in column 'label', row 1"):
        check_table(tmp_path / "rows.parquet", "text", label_column="label")


def test_rows_whose_class_is_not_told_are_refused(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"-1 in column 'label', row 2 of .*; allowed: a label"):
        check_table(tmp_path / "rows.parquet", "text", label_column="label")


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("rows.csv", "text;label\na;x\n", "separated by semicolons"),
        ("rows.csv", ",text,label\n0,a,x\n", "1 column.* without a name left out"),
        ("rows.csv", "text,label\na,x,\n", "1 column.* without a name left out"),
        ("rows.tsv", 'text\tlabel\n"say ""hi"""\tx\n', "1 row.* with cells in quotes, which in .tsv are char"),
    ],
)
def test_what_was_taken_for_granted_is_told(tmp_path, name, content, note):
    (tmp_path / name).write_text(content)
    notes = notes_on(tmp_path / name)
    assert len(notes) == 1
    assert re.search(note, notes[0]), notes


def test_plain_files_and_long_texts_need_no_word(tmp_path):
    text = "word " * 50_000  # beyond the limit of the module `csv`
    (tmp_path / "rows.csv").write_text(f"text,label\n{text},x\n")
    assert notes_on(tmp_path / "rows.csv") == []
    assert read_table(tmp_path / "rows.csv")["text"][0] == text


@pytest.mark.parametrize("name", ["train[1].csv", "tr*n1.csv", "tr?in1.csv", "{train1,x}.csv", "[a]/train1.csv"])
def test_a_name_is_no_pattern(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("text,label\na,x\nb,y\n")
    (tmp_path / "train1.csv").write_text("text,label\nanother,z\n")
    assert read_table(tmp_path / name)["text"][:] == ["a", "b"]


def test_a_name_that_is_a_chain_to_others_is_one_line(tmp_path):
    (tmp_path / "a::b.csv").write_text("text,label\na,x\n")
    with pytest.raises(ValueError, match=r"a::b\.csv, which can't be read"):
        read_table(tmp_path / "a::b.csv")


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\na,x\n")
    assert len(read_table(path)) == 1
    path.write_text("text;label\na;x\nb;y\n")
    assert read_table(path)["text"][:] == ["a", "b"]


def test_raw_text_of_several_kinds_of_files_is_each_sentence_once(tmp_path):
    (tmp_path / "a.csv").write_text("text\nmy card\nmy card\nsend\n")
    pd.DataFrame({"text": ["late", "send"]}).to_parquet(tmp_path / "b.parquet")  # pandas has texts of another type
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "now"}) + "\n")
    paths = [tmp_path / name for name in ("a.csv", "b.parquet", "c.jsonl")]
    assert read_sentences(paths, "text")["text"][:] == ["my card", "send", "late", "now"]


def test_a_text_a_line_ends_where_its_line_does(tmp_path):
    (tmp_path / "texts.txt").write_bytes("my card\r\n\n  \nfirst\u2028still first\n".encode())
    assert read_lines(tmp_path / "texts.txt") == ["my card", "first\u2028still first"]
