"""A student without a head is read by sentence-transformers as its teacher is."""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, BertModel

from edgemin_hf import PruningConfig, QuantizationConfig, create_student, export_onnx
from tests.helpers.models import tiny
from tests.helpers.training import make

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = ["where is my card", "please send the money to my new old card now", "late"]
MODULES = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A teacher as sentence-transformers' repositories hold them, which takes the first token and normalises it."""
    return save_teacher(tmp_path / "teacher", tokenizer, MODULES)


def save_teacher(folder, tokenizer, modules):
    tiny(head=AutoModel).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    package = "sentence_transformers.models"
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"{package}.{kind}"} for i, (path, kind) in enumerate(modules)
    ]
    files = {
        "modules.json": listed,
        "1_Pooling/config.json": {"word_embedding_dimension": 32, "pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 7, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "where "}, "default_prompt_name": "query"},
    }
    (folder / "1_Pooling").mkdir()
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@torch.no_grad()
def by_hand(model, tokenizer):
    inputs = tokenizer([f"where {text}" for text in TEXTS], padding=True, truncation=True, max_length=7)
    inputs = {name: torch.tensor(inputs[name]) for name in ("input_ids", "attention_mask")}
    return torch.nn.functional.normalize(model.eval()(**inputs).last_hidden_state[:, 0])


@pytest.mark.long
def test_an_exported_student_is_read_as_its_teacher(folder, tmp_path, tokenizer, caplog):
    student = create_student(BertModel.from_pretrained(folder), 2, hidden_size=16, num_attention_heads=2)
    export_onnx(student.eval(), tokenizer, tmp_path / "edge")
    for settings in ({}, {"backend": "onnx", "model_kwargs": {"file_name": "onnx/model.onnx"}}):
        if settings:
            pytest.importorskip("optimum.onnxruntime")
        reader = sentence_transformers.SentenceTransformer(str(tmp_path / "edge"), device="cpu", **settings)
        found = torch.tensor(reader.encode(TEXTS))
        torch.testing.assert_close(found, by_hand(student, tokenizer), rtol=1e-4, atol=1e-5)
        assert reader.max_seq_length == 7
        assert reader.get_sentence_embedding_dimension() == 16
    assert "sentence-transformers" not in caplog.text
    assert str(tmp_path) not in (tmp_path / "edge/config.json").read_text()


@pytest.mark.long
def test_a_trained_pruned_and_quantised_student_is_too(folder, tmp_path, tokenizer):
    teacher = AutoModel.from_pretrained(folder)
    pruning = PruningConfig(head_sparsity=0.5, ffn_sparsity=0.5, saliency="random")
    changes = {"pruning_config": pruning, "quantization_config": QuantizationConfig(), "max_steps": 1}
    trainer = make(tmp_path / "work", tokenizer, create_student(teacher, 2), teacher, **changes)
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    export_onnx(trainer.model.eval(), tokenizer, tmp_path / "edge")
    for made in ("student", "edge"):
        model = AutoModel.from_pretrained(tmp_path / made)
        assert model.config.intermediate_size == teacher.config.intermediate_size // 2
        reader = sentence_transformers.SentenceTransformer(str(tmp_path / made), device="cpu")
        torch.testing.assert_close(torch.tensor(reader.encode(TEXTS)), by_hand(model, tokenizer), rtol=1e-4, atol=1e-5)
    # A student of the student, in another process.
    grandchild = create_student(AutoModel.from_pretrained(tmp_path / "student"), 1)
    export_onnx(grandchild.eval(), tokenizer, tmp_path / "small")
    assert json.loads((tmp_path / "small/modules.json").read_text()) == json.loads(
        (folder / "modules.json").read_text()
    )


def test_where_the_teachers_embedding_is_not_known_it_is_told_what_a_reader_gets(tmp_path, tokenizer, caplog):
    export_onnx(tiny(head=AutoModel), tokenizer, tmp_path / "edge")
    assert not (tmp_path / "edge/modules.json").exists()
    assert "mean of the tokens, not normalised" in caplog.text


@pytest.mark.parametrize("module", [("3_Dense", "Dense"), ("../outside", "Pooling")])
def test_a_module_that_can_not_be_carried_over_is_named(module, tmp_path, tokenizer, caplog):
    folder = save_teacher(tmp_path / "teacher", tokenizer, [*MODULES, module])
    student = create_student(AutoModel.from_pretrained(folder), 1)
    assert f"module sentence_transformers.models.{module[1]}" in caplog.text
    assert not hasattr(student.config, "edgemin_sentence_modules")


def test_a_student_with_a_head_gives_no_embedding(folder, tmp_path, tokenizer, caplog):
    teacher = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    export_onnx(create_student(teacher, 1).eval(), tokenizer, tmp_path / "edge")
    assert not (tmp_path / "edge/modules.json").exists()
    assert "sentence-transformers" not in caplog.text
