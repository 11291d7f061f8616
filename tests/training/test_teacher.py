import hashlib

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from edgemin_hf import DistilBERTConfig, TaskDistillationConfig, create_student
from edgemin_hf.modeling import Selection, remove
from tests.helpers.models import tiny
from tests.helpers.training import RELATIONS, assert_same, make, weights


def digests(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.mark.parametrize("as_path", [True, False])
def test_a_folder_teaches_as_the_model_in_it_does_and_stays_as_it_is(as_path, tmp_path, tokenizer):
    folder = tmp_path / "teacher"
    teacher = tiny().to(torch.bfloat16)
    teacher.save_pretrained(folder)
    before = digests(folder)
    config = [TaskDistillationConfig(), RELATIONS]
    named = make(tmp_path / "a", tokenizer, create_student(tiny(), 2), folder if as_path else str(folder), config)
    assert named.teacher_model.dtype == torch.float32
    assert not named.teacher_model.training
    assert not any(parameter.requires_grad for parameter in named.teacher_model.parameters())
    named.train()
    given = make(tmp_path / "b", tokenizer, create_student(tiny(), 2), teacher.float(), config)
    given.train()
    assert_same(weights(named), weights(given))
    assert digests(folder) == before


def test_a_pruned_teacher_and_other_heads_are_loaded(tmp_path, tokenizer):
    pruned = tiny("deberta-v2")
    remove(pruned, Selection([[0, 1]] * 3, [range(8), range(16), range(64)]))
    pruned.save_pretrained(tmp_path / "pruned")
    trainer = make(tmp_path, tokenizer, tiny("deberta-v2"), tmp_path / "pruned", TaskDistillationConfig())
    assert_same(dict(trainer.teacher_model.state_dict()), dict(pruned.state_dict()))
    tiny(head=AutoModelForMaskedLM).save_pretrained(tmp_path / "words")
    student = create_student(tiny(head=AutoModelForMaskedLM), 2)
    trainer = make(tmp_path, tokenizer, student, tmp_path / "words", DistilBERTConfig())
    assert type(trainer.teacher_model).__name__ == "BertForMaskedLM"
    trainer = make(tmp_path, tokenizer, create_student(tiny(head=AutoModel), 2), tmp_path / "words")
    assert type(trainer.teacher_model).__name__ == "BertModel"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no such/place/at all", "teacher_model: 'no such/place/at all' is neither a Hub id"),
        ("empty", "teacher_model: .*holds no config.json"),
    ],
)
def test_a_bad_name_is_one_clear_line(name, message, tmp_path, tokenizer):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message) as caught:
        make(tmp_path, tokenizer, teacher=str(tmp_path / name) if name == "empty" else name)
    assert "\n" not in str(caught.value)


def test_a_teacher_without_a_head_teaches_no_predictions(tmp_path, tokenizer):
    tiny(head=AutoModel, num_labels=2).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="bare holds a BertModel; expected a BertForSequenceClassification"):
        make(tmp_path, tokenizer, tiny(num_labels=2), tmp_path / "bare", TaskDistillationConfig())
    make(tmp_path, tokenizer, tiny(num_labels=2), tmp_path / "bare", RELATIONS)  # reads no predictions
