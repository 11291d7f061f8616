"""Lengths and hashes of rows come from where they lie, not from each row."""

import numpy as np
from datasets import Dataset, concatenate_datasets

from edgemin_hf.data.batches import padded_batches, token_hash, token_lengths

IDS = [[2, 7, 3], [2, 3], [], [2, 9, 9, 3]]


def test_lengths_are_those_of_the_rows_however_they_are_kept():
    rows = Dataset.from_dict({"input_ids": IDS, "labels": [0, 1, 2, 3]})
    for one in (rows, rows.with_format("torch"), [{"input_ids": ids} for ids in IDS]):
        assert token_lengths(one).tolist() == [3, 2, 0, 4]
    assert token_lengths(rows.select([3, 0])).tolist() == [4, 3]
    assert token_lengths(rows.select([])).tolist() == []
    assert token_lengths(rows).dtype == np.int64


def test_a_hash_is_that_of_the_tokens_alone(monkeypatch):
    rows = Dataset.from_dict({"input_ids": IDS, "labels": [0, 1, 2, 3]})
    parts = concatenate_datasets([rows.select([0, 1]), rows.select([2, 3])])
    moved = rows.select([3, 2, 1, 0]).select([3, 2, 1, 0])
    assert token_hash(rows) == token_hash(parts) == token_hash(moved) == token_hash(rows.remove_columns("labels"))
    others = [[[2, 7], [3, 2, 3], [], [2, 9, 9, 3]], [[2, 7, 3], [2, 3], [2, 9, 9, 3], []], IDS[:3]]
    assert token_hash(rows) not in {token_hash(Dataset.from_dict({"input_ids": other})) for other in others}


def test_rows_are_not_decoded_one_by_one(monkeypatch):
    rows = Dataset.from_dict({"input_ids": IDS})

    def refuse(*_):
        raise AssertionError("a row was decoded")

    monkeypatch.setattr(Dataset, "__getitem__", refuse)
    assert token_lengths(rows).sum() == 9
    assert len(token_hash(rows)) == 64


def test_batches_of_like_length_hold_each_row_once_with_its_label(tokenizer):
    rows = Dataset.from_dict({"input_ids": [[2, 7, 3], [2, 3], [2, 9, 9, 3]], "labels": [0, 1, 2]})
    rows = rows.add_column("attention_mask", [[1] * len(ids) for ids in rows["input_ids"]])
    found = list(padded_batches(rows, tokenizer, batch_size=2))
    assert [part.tolist() for part, _ in found] == [[1, 0], [2]]
    assert [batch["input_ids"].tolist() for _, batch in found] == [[[2, 3, 0], [2, 7, 3]], [[2, 9, 9, 3]]]
    assert [batch["attention_mask"].tolist() for _, batch in found] == [[[1, 1, 0], [1, 1, 1]], [[1, 1, 1, 1]]]
    assert [batch["labels"].tolist() for _, batch in found] == [[1, 0], [2]]
