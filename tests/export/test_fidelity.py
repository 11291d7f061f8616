import numpy as np
import onnx
import pytest
from transformers import BertConfig, BertForSequenceClassification

from edgemin_hf import export_onnx
from edgemin_hf.export.check_texts import ENOUGH, enough_texts, long_batches
from edgemin_hf.export.fidelity import Comparison, FidelityError, check_fidelity
from tests.helpers.models import SHAPE, sentences, tiny

TEXTS = [text for text, _ in sentences(24, seed=7)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer):
    """A model that reads 300 tokens, and a tokenizer that says so."""
    model = tiny(max_position_embeddings=300)
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    return model, tokenizer, export_onnx(model, tokenizer, tmp_path_factory.mktemp("export") / "out", texts=TEXTS)


def test_positions_far_into_a_text_are_checked_too(exported, tmp_path):
    model, tokenizer, made = exported
    assert made.fp32.longest == 300
    graph = onnx.load(made.folder / "onnx/model.onnx")
    (table,) = (t for t in graph.graph.initializer if t.name.endswith("position_embeddings.weight"))
    rows = onnx.numpy_helper.to_array(table).copy()
    rows[200:] = rows[200:][::-1]
    table.CopyFrom(onnx.numpy_helper.from_array(rows, table.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    check_fidelity(model, tmp_path / "wrong.onnx", tokenizer, TEXTS, max_length=128)  # whose task reads no further
    with pytest.raises(FidelityError, match=r"wrong\.onnx differs .* up to 300 tokens"):
        check_fidelity(model, tmp_path / "wrong.onnx", tokenizer, TEXTS)


def test_texts_are_as_long_as_the_task_lets_them_be(exported):
    model, tokenizer, made = exported
    assert check_fidelity(model, made.folder / "onnx/model.onnx", tokenizer, TEXTS, max_length=20).longest == 20
    for texts in (TEXTS, [("card", "money")], ["", "a"]):
        batches = list(long_batches(tokenizer, model.config, texts))
        lengths = np.concatenate([batch["attention_mask"].sum(axis=1) for batch in batches])
        assert len(lengths) == 5
        assert lengths.max() == 300
        assert 100 < lengths.min() < 200


def test_long_texts_of_a_long_model_are_cut_where_memory_would_end(tokenizer):
    tokenizer = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    config = BertConfig(**{**SHAPE, "max_position_embeddings": 100_000, "num_attention_heads": 32, "hidden_size": 64})
    assert max(batch["input_ids"].size for batch in long_batches(tokenizer, config, ["my card"])) == 2048


def test_four_of_sixteen_texts_on_another_point_of_a_grid_are_chance(exported):
    model, _, made = exported
    compared = Comparison(model, made.folder / "onnx/model.onnx")
    compared.sizes, compared.floors = [1.0] * 16, [1e-7] * 16
    compared.errors = [1e-7] * 11 + [3e-3] * 5
    found = compared.outcome()
    assert found.error <= found.limit
    compared.errors = [1e-7] * 7 + [3e-3] * 9
    found = compared.outcome()
    assert found.error > found.limit


def test_few_texts_are_made_enough(exported):
    *_, made = exported
    assert made.fp32.examples == ENOUGH
    assert enough_texts(TEXTS) == enough_texts(TEXTS)
    assert enough_texts(TEXTS)[: len(TEXTS)] == TEXTS
    assert len(set(enough_texts(TEXTS))) == ENOUGH
    assert enough_texts(["a"] * 200) == ["a"] * 200
    assert enough_texts([("a", "b")], 3) == [("a", "b"), ("a a", "b b"), ("a a a", "b b b")]
    with pytest.raises(ValueError, match="texts: none; allowed: 1 or more"):
        enough_texts([])


def test_a_model_without_positions_to_spare(tmp_path, tokenizer):
    model = BertForSequenceClassification(BertConfig(**{**SHAPE, "max_position_embeddings": 20})).eval()
    made = export_onnx(model, tokenizer, tmp_path / "out", texts=["where is my new card, please send it to me now"])
    assert made.fp32.longest == 20
