import pytest
import torch
from conftest import FAMILIES, batch, tiny
from transformers import BertModel

from edgemin_hf import create_student
from edgemin_hf.encoder import Encoder
from edgemin_hf.families import shape_of


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_all_layers_is_the_teacher(family):
    teacher = tiny(family)
    student = create_student(teacher).eval()
    assert type(student) is type(teacher)
    torch.testing.assert_close(student(**batch()).logits, teacher(**batch()).logits)
    assert not set(map(id, student.parameters())) & set(map(id, teacher.parameters()))


@pytest.mark.parametrize(("depth", "layers", "expected"), [(2, None, [0, 2]), (1, None, [2]), (2, [2, 3], [1, 2])])
def test_layers_are_copied_from_those_named_or_evenly_spaced(depth, layers, expected):
    teacher = tiny()
    student = create_student(teacher, depth, layers=layers)
    for ours, theirs in enumerate(expected):
        wanted = Encoder(teacher).layers[theirs].module.state_dict()
        for name, value in Encoder(student).layers[ours].module.state_dict().items():
            torch.testing.assert_close(value, wanted[name])
    torch.testing.assert_close(student.classifier.weight, teacher.classifier.weight)


def test_depth_width_heads_and_ffn_are_free():
    student = create_student(tiny(), 2, hidden_size=24, num_attention_heads=3, intermediate_size=40)
    assert shape_of(student.config) == (2, 24, 3, 40)
    assert student.training
    assert student(**batch()).logits.shape == (3, 3)
    assert shape_of(create_student(tiny(), hidden_size=16).config) == (3, 16, 4, 32)


def test_layers_are_not_copied_into_another_head_split():
    teacher = tiny()
    student = create_student(teacher, num_attention_heads=2)
    ours, theirs = (Encoder(model).layers[0].q.weight for model in (student, teacher))
    assert not torch.equal(ours, theirs)
    torch.testing.assert_close(
        student.bert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_another_family_keeps_vocabulary_positions_and_labels(family):
    teacher = tiny("bert", id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    student = create_student(teacher, 2, model_type=family).eval()
    assert student.config.model_type == family
    assert shape_of(student.config) == (2, 32, 4, 64)
    assert student.config.id2label == {0: "a", 1: "b", 2: "c"}
    longest = batch((66, 60))
    assert student(**longest).logits.shape == (2, 3)


def test_a_headless_teacher_has_a_headless_student():
    teacher = BertModel(tiny().config)
    assert type(create_student(teacher, 1)) is BertModel


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_hidden_layers": 4}, "num_hidden_layers: 4; allowed: 1 to 3"),
        ({"hidden_size": 64}, "hidden_size: 64; allowed: 1 to 32"),
        ({"num_hidden_layers": -1}, "num_hidden_layers: -1"),
        ({"hidden_size": 30}, "num_attention_heads: 4; allowed: a divisor of hidden_size 30"),
        ({"num_hidden_layers": 2, "layers": [1]}, "layers"),
        ({"num_hidden_layers": 1, "layers": [4]}, "layers"),
        ({"model_type": "gpt2"}, "model_type: gpt2; allowed: bert"),
    ],
)
def test_impossible_students(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_student(tiny(), **arguments)
