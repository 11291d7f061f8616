"""Masks of rows: by content alone, always the same where they are to be."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from edgemin_hf.data.masked_rows import IN_TURN, MaskingCollator, drawn_places, masked_rows, packed_rows
from tests.helpers.masked_words import ordered_texts

MASK = 4


def rows_of(tokenizer, texts):
    encoded = tokenizer(texts)
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in encoded["input_ids"]]


def test_a_share_of_the_tokens_is_drawn_and_no_special_one():
    ids = np.array([2, *range(10, 30), 3, 0, 0])
    for seed in range(20):
        places = drawn_places(ids, [0, 1, 2, 3, 4], 0.15, np.random.default_rng(seed))
        assert len(places) == 3
        assert (places >= 1).all()
        assert (places <= 20).all()
        assert (np.diff(places) > 0).all()
    assert len(drawn_places(np.array([2, 7, 3]), [2, 3], 0.15, np.random.default_rng(0))) == 1
    assert len(drawn_places(np.array([2, 3]), [2, 3], 0.15, np.random.default_rng(0))) == 0


def test_tokens_are_masked_replaced_or_kept_as_bert_does(tokenizer):
    rows = [{"input_ids": [2, *np.random.default_rng(n).integers(5, 71, 40).tolist(), 3]} for n in range(200)]
    batch = MaskingCollator(tokenizer, share=0.5)(rows)
    at, ids = batch["counted"], torch.tensor([row["input_ids"] for row in rows])
    assert torch.equal(batch["labels"][at], ids[at])
    assert (batch["labels"][~at] == -100).all()
    assert torch.equal(batch["input_ids"][~at], ids[~at])
    assert at.sum(dim=1).tolist() == [20] * 200
    masked = (batch["input_ids"][at] == MASK).float().mean()
    kept = (batch["input_ids"][at] == ids[at]).float().mean()
    assert masked == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1 + 0.1 / 71, abs=0.02)


@pytest.mark.parametrize("side", ["right", "left"])
def test_neither_the_batch_nor_its_padding_changes_the_masks(tokenizer, side):
    rows = rows_of(tokenizer, ordered_texts(6))
    tokenizer.padding_side = side
    try:
        collate = MaskingCollator(tokenizer, seed=3)
        together = collate(rows[::-1])
        for row, ids, labels, mask in zip(
            rows[::-1], together["input_ids"], together["labels"], together["attention_mask"], strict=True
        ):
            alone = collate([row])
            own = mask.bool()
            assert torch.equal(ids[own], alone["input_ids"][0])
            assert torch.equal(labels[own], alone["labels"][0])
            assert (labels[~own] == -100).all()
    finally:
        tokenizer.padding_side = "right"


def test_epoch_and_seed_change_the_masks_and_nothing_else_does(tokenizer):
    rows = rows_of(tokenizer, ordered_texts(4))
    first, again = (MaskingCollator(tokenizer)(rows)["labels"] for _ in range(2))
    assert torch.equal(first, again)
    for changed in ({"epoch": 1}, {"seed": 1}):
        assert not torch.equal(first, MaskingCollator(tokenizer, **changed)(rows)["labels"])


def test_rows_with_labels_are_left_as_they_are(tokenizer):
    table = Dataset.from_dict({"text": ordered_texts(3), IN_TURN: [False] * 3})
    rows = masked_rows(table, "text", tokenizer, 24, 0.3)
    batch = MaskingCollator(tokenizer, epoch=7)(list(rows))
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        assert ids[: len(row["input_ids"])].tolist() == row["input_ids"]
        assert labels[: len(row["labels"])].tolist() == row["labels"]


def test_fixed_masks_are_one_row_a_text_and_one_a_token_in_turn(tokenizer):
    texts = ordered_texts(3)
    rows = masked_rows(Dataset.from_dict({"text": texts, IN_TURN: [True, False, True]}), "text", tokenizer, 12, 0.3)
    again = masked_rows(Dataset.from_dict({"text": texts[2:], IN_TURN: [True]}), "text", tokenizer, 12, 0.3)
    last = rows.filter(lambda row: row["example"] == 2)
    assert last["input_ids"][:] == again["input_ids"][:]  # by content, whatever else is measured
    whole = tokenizer(texts, truncation=True, max_length=12)["input_ids"]
    for number, ids in enumerate(whole):
        once, *alone = rows.filter(lambda row, number=number: row["example"] == number)
        assert (once[IN_TURN], sum(once["counted"])) == (False, max(1, round(0.3 * (len(ids) - 2))))
        assert len(alone) == (0 if number == 1 else len(ids) - 2)
        for place, row in enumerate(alone, start=1):
            assert row[IN_TURN]
            assert row["input_ids"] == [*ids[:place], MASK, *ids[place + 1 :]]
            assert row["labels"] == [-100] * place + [ids[place]] + [-100] * (len(ids) - place - 1)
        for row in (once, *alone):
            restored = [
                new if label == -100 else label for new, label in zip(row["input_ids"], row["labels"], strict=True)
            ]
            assert restored == ids


def test_packed_rows_hold_every_token_in_order(tokenizer):
    texts = ordered_texts(20)
    rows = packed_rows(Dataset.from_dict({"text": texts}), "text", tokenizer, 16)
    assert {len(ids) for ids in rows["input_ids"][:-1]} == {16}
    assert all((ids[0], ids[-1]) == (2, 3) for ids in rows["input_ids"])
    inner = [token for ids in rows["input_ids"] for token in ids[1:-1]]
    expected = [token for text in texts for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], 3]]
    assert inner == expected[:-1]  # a separator between two, and none of its own in a last row


def test_a_last_packed_row_is_no_separator_alone(tokenizer):
    text = " ".join(["card"] * 14)
    rows = packed_rows(Dataset.from_dict({"text": [text]}), "text", tokenizer, 16)
    assert rows["input_ids"][:] == [tokenizer(text)["input_ids"]]
