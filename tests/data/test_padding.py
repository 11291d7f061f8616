import copy

import numpy as np
import pytest
import torch

from edgemin_hf.data.padding import PaddingCollator

ROWS = [
    {"input_ids": [2, 7, 8, 3], "attention_mask": [1] * 4, "labels": [-100, 1, 2, -100], "counted": [0, 1, 1, 0],
     "word_ids": [-1, 0, 1, -1], "tags": [1, 2], "example": 0, "context": "text"},
    {"input_ids": [2, 3], "attention_mask": [1] * 2, "labels": [-100, -100], "counted": [0, 0],
     "word_ids": [-1, -1], "tags": [], "example": 1, "context": "more"},
]  # fmt: skip
SAID = [np.array([[1, 2], [3, 4]], dtype=np.float16), np.zeros((0, 2), dtype=np.float16)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_rows_hold_for_each_token_is_padded_like_the_tokens(tokenizer, side):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = side
    rows = [{**row, "teacher_row": number} for number, row in enumerate(ROWS)]
    batch = PaddingCollator(tokenizer, teacher=SAID)(rows)
    own = slice(2) if side == "right" else slice(2, None)
    assert set(batch) == {"input_ids", "attention_mask", "labels", "counted", "teacher_logits"}
    assert batch["labels"].tolist()[0] == ROWS[0]["labels"]
    assert (batch["labels"][1] == -100).all()
    assert batch["counted"].dtype == torch.bool
    assert batch["counted"].sum(dim=1).tolist() == [2, 0]
    assert batch["teacher_logits"].tolist() == [[[0, 0], [1, 2], [3, 4], [0, 0]], [[0, 0]] * 4]
    assert batch["input_ids"][1, own].tolist() == [2, 3]
    assert batch["attention_mask"][1].tolist() == ([1, 1, 0, 0] if side == "right" else [0, 0, 1, 1])


def test_rows_that_are_labelled_as_a_whole_are_padded_as_ever(tokenizer):
    rows = [{"input_ids": [2, 7, 3], "labels": [0.0, 1.0, 0.0], "teacher_logits": [1.0, 2.0, 3.0]}]
    rows += [{"input_ids": [2, 3], "labels": [1.0, 1.0, 0.0], "teacher_logits": [3.0, 2.0, 1.0]}]
    batch = PaddingCollator(tokenizer)(rows)
    assert batch["labels"].tolist() == [[0, 1, 0], [1, 1, 0]]
    assert batch["teacher_logits"].tolist() == [[1, 2, 3], [3, 2, 1]]
    two = [{**ROWS[0], "labels": [1, 2]}, {**ROWS[1], "labels": [0, 0]}]  # a start and an end, not a label a token
    assert PaddingCollator(tokenizer)(two)["labels"].tolist() == [[1, 2], [0, 0]]
