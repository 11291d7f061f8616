import pickle
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification

from edgemin_hf.distillation import token_outputs
from edgemin_hf.distillation.token_outputs import TokenOutputs, cached_token_outputs
from tests.helpers.models import tiny


def rows(count=9, seed=0):
    generator = np.random.default_rng(seed)
    found = [[2, *generator.integers(5, 40, size=generator.integers(1, 12)).tolist(), 3] for _ in range(count)]
    counted = [[0, *generator.integers(0, 2, size=len(ids) - 2).tolist(), 0] for ids in found]
    return Dataset.from_dict({
        "input_ids": found, "attention_mask": [[1] * len(ids) for ids in found], "counted": counted,
        "context": ["no input"] * count,
    })  # fmt: skip


@pytest.mark.parametrize("head", [AutoModelForTokenClassification, AutoModelForQuestionAnswering])
def test_they_are_the_models_rounded_for_the_tokens_that_count(tmp_path, tokenizer, head):
    teacher, data = tiny(head=head, id2label={0: "O", 1: "B-x"}, label2id={"O": 0, "B-x": 1}), rows()
    found = cached_token_outputs(teacher, data, tokenizer, tmp_path / "cache/outputs.npy", "v1")
    assert len(found) == len(data)
    for row, outputs in zip(data, found[:], strict=True):
        with torch.no_grad():
            said = teacher(torch.tensor([row["input_ids"]]))
        parts = [said.logits] if "logits" in said else [torch.stack([said.start_logits, said.end_logits], -1)]
        expected = parts[0][0, torch.tensor(row["counted"]).bool()]
        assert outputs.dtype == np.float16
        np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-3)
    size = sum(map(sum, data["counted"])) * 2 * 2
    assert size <= (tmp_path / "cache/outputs.npy").stat().st_size <= size + 256


def test_they_are_computed_once_and_read_to_the_bit(tmp_path, tokenizer, monkeypatch):
    teacher, data, path = tiny(head=AutoModelForTokenClassification), rows(), tmp_path / "outputs.npy"
    get = partial(cached_token_outputs, teacher, data, tokenizer, path)
    first = [array.copy() for array in get("v1")]
    stamp = path.stat().st_mtime_ns
    again = get("v1")
    assert path.stat().st_mtime_ns == stamp
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
    other = pickle.loads(pickle.dumps(again))  # as a loader's workers get it, without the values
    assert len(pickle.dumps(again)) < 2000
    assert np.array_equal(other[3], first[3])
    get("v2")
    assert path.stat().st_mtime_ns != stamp
    # A kill while it is computed leaves nothing that is taken for the whole.
    monkeypatch.setattr(token_outputs, "padded_batches", lambda *_: iter(()))
    with pytest.raises((AssertionError, ZeroDivisionError)):
        get("v3")
    monkeypatch.undo()
    assert all(np.array_equal(one, other) for one, other in zip(first, get("v3"), strict=True))


def test_several_teachers_are_averaged_in_the_order_of_the_labels(tmp_path):
    for number, values in enumerate(([[1, 2], [3, 4], [5, 6]], [[6, 5], [4, 3], [2, 1]])):
        np.save(tmp_path / f"{number}.npy", np.array(values, dtype=np.float16))
    files = [tmp_path / "0.npy", tmp_path / "1.npy"]
    assert TokenOutputs(files, [1, 0, 2], [None, [1, 0]])[2].tolist() == [[3, 4], [3, 4]]
    assert TokenOutputs(files[:1], [1, 0, 2])[1].shape == (0, 2)


def test_a_file_of_other_tokens_is_told(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros((3, 2), dtype=np.float16))
    with pytest.raises(ValueError, match=r"0\.npy: 3 tokens; expected: 4, all that count"):
        TokenOutputs([tmp_path / "0.npy"], [1, 3])[0]
