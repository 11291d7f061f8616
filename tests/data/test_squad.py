import json

import pytest
from datasets import Dataset

from edgemin_hf.data.squad import answers_of, is_squad
from edgemin_hf.data.tables import read_table

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Idols",
            "paragraphs": [
                {
                    "context": "It began in June. 北京 came later 😀.",
                    "qas": [
                        {"id": "a", "question": "When?", "answers": [{"text": "June", "answer_start": 12}] * 2},
                        {
                            "id": "b",
                            "question": "Who?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "It", "answer_start": 0}],
                        },
                    ],
                }
            ],
        },
        {"title": "Empty", "paragraphs": []},
    ],
}
ROWS = [
    {"id": "a", "title": "Idols", "question": "When?", "answers": {"text": ["June"] * 2, "answer_start": [12] * 2}},
    {"id": "b", "title": "Idols", "question": "Who?", "answers": {"text": [], "answer_start": []}},
]
ROWS = [{**row, "context": "It began in June. 北京 came later 😀."} for row in ROWS]


@pytest.mark.parametrize("indent", [None, 1])
def test_published_files_are_read_as_rows(indent, tmp_path):
    file = tmp_path / "dev-v2.0.json"
    file.write_text(json.dumps(SQUAD, indent=indent))
    assert is_squad(file)
    assert list(read_table(file)) == ROWS


def test_a_changed_file_is_read_again(tmp_path):
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(SQUAD))
    assert len(read_table(file)) == 2
    file.write_text(json.dumps({"data": SQUAD["data"] * 2}))
    assert len(read_table(file)) == 4


def test_other_json_is_read_as_before(tmp_path):
    for name, content in (("lines", "\n".join(map(json.dumps, ROWS))), ("list", json.dumps(ROWS))):
        file = tmp_path / f"{name}.json"
        file.write_text(content)
        assert not is_squad(file)
        assert read_table(file)["question"][:] == ["When?", "Who?"]


def test_broken_files_are_told_in_one_line(tmp_path):
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": [{"title": "x", "paragraphs": [{"context": "no questions"}]}]}))
    with pytest.raises(ValueError, match=r"article 1: KeyError: 'qas'") as found:
        read_table(file)
    assert "\n" not in str(found.value)


def test_both_ways_of_writing_answers_are_one():
    lists = {"text": ["June", "in June"], "answer_start": [12, 9]}
    rows = [{"text": "June", "answer_start": 12}, {"answer_start": 9, "text": "in June"}]
    assert answers_of(lists) == answers_of(rows) == lists
    assert answers_of([]) == {"text": [], "answer_start": []}
    for wrong in (
        None,
        "June",
        {"text": ["June"]},
        {"text": ["June"], "answer_start": []},
        [{"text": "June"}],
        [12],
        {"text": [1], "answer_start": [1]},
        {"text": ["June"], "answer_start": ["12"]},
    ):
        with pytest.raises(ValueError, match=r'answers .*; expected: \{"text"'):
            answers_of(wrong)


def test_tables_keep_answers_in_either_way(tmp_path):
    rows = Dataset.from_list(ROWS)
    rows.to_parquet(tmp_path / "dev.parquet")
    assert read_table(tmp_path / "dev.parquet")["answers"][:] == rows["answers"][:]
