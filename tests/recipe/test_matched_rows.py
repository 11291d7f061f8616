import numpy as np
from datasets import Dataset

from edgemin_hf.recipe.matched_rows import matched_rows
from edgemin_hf.recipe.teachers import _key


def rows(*windows, column="offsets"):
    examples, places, counted = zip(*windows, strict=True)
    return Dataset.from_dict({"example": examples, column: places, "counted": counted})


FIRST = (0, [[0, 0], [0, 0], [0, 2], [3, 5]], [1, 0, 1, 1])
SECOND = (0, [[0, 0], [0, 0], [3, 5], [6, 9]], [1, 0, 1, 1])
OTHER = (1, *FIRST[1:])


def test_a_full_window_of_other_pieces_is_no_window_of_the_teachers():
    theirs = rows(FIRST, SECOND, OTHER)
    divided = (0, [[0, 0], [0, 0], [0, 1], [1, 2]], [1, 0, 1, 1])  # as many that count, of less text
    more = (0, [[0, 0], [0, 0], [6, 8], [8, 9]], [1, 0, 1, 1])
    assert matched_rows(rows(divided, SECOND, more, OTHER), theirs).tolist() == [-1, 1, -1, 2]
    # What does not count, such as a question of more pieces, is not asked about.
    longer = (0, [[0, 0], [0, 0], [0, 0], [0, 2], [3, 5]], [1, 0, 0, 1, 1])
    assert matched_rows(rows(longer), theirs).tolist() == [0]


def test_rows_of_words_are_matched_by_the_words():
    theirs = rows((0, [-1, 0, -1, 1], [0, 1, 0, 1]), (3, [-1, 2], [0, 1]), column="word_ids")
    ours = rows((3, [-1, 2, -1], [0, 1, 0]), (0, [-1, 0, 1], [0, 1, 1]), (0, [-1, 0, 2], [0, 1, 1]), column="word_ids")
    assert matched_rows(ours, theirs).tolist() == [1, 0, -1]
    assert np.array_equal(matched_rows(ours, ours), [0, 1, 2])


def test_kept_outputs_depend_on_which_tokens_count(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    ids = {"input_ids": [[2, 5, 3]]}
    keys = {_key(Dataset.from_dict(ids | more), str(tmp_path)) for more in ({}, {"counted": [[0, 1, 0]]})}
    keys.add(_key(Dataset.from_dict(ids | {"counted": [[0, 1, 1]]}), str(tmp_path)))
    assert len(keys) == 3
