import copy
import json

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    ModernBertConfig,
    pipeline,
)

from edgemin_hf import QuantizationConfig, create_student, export_onnx, load_pruned, quantize
from edgemin_hf.modeling import model_class
from edgemin_hf.modeling.auto_class import new_model
from edgemin_hf.modeling.hooks import forward_names
from edgemin_hf.modeling.pooling import mean_of_tokens
from edgemin_hf.modeling.pruned_shape import plain_releases
from edgemin_hf.modeling.sentence_modules import sentence_pooling
from edgemin_hf.modeling.student import auto_class_of
from edgemin_hf.modeling.surgery import Selection, remove
from tests.helpers.models import FAMILIES, batch, sentences, tiny

CLASSIFIER = AutoModelForSequenceClassification
TEXTS = [text for text, _ in sentences(24, seed=7)]


def pooled(family="bert"):
    config = copy.deepcopy(tiny(family).config)
    config.classifier_pooling = "mean"
    torch.manual_seed(0)
    return new_model(CLASSIFIER, config).eval()


def beside(folder, **modes):
    """Write the modules of a sentence encoder beside a checkpoint."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_a_linear_layer_of_the_mean_and_heed_no_padding(family):
    model, inputs = pooled(family), batch()
    with torch.no_grad():
        logits = model(**inputs).logits
        hidden = model.base_model(**{k: v for k, v in inputs.items() if k != "labels"})[0].double().numpy()
    mask = inputs["attention_mask"].numpy()
    if family != "modernbert":  # which has a head of its own, with a dense layer and a norm
        weight, bias = (tensor.detach().double().numpy() for tensor in (model.classifier.weight, model.classifier.bias))
        mean = np.stack([row[own == 1].mean(axis=0) for row, own in zip(hidden, mask, strict=True)])
        np.testing.assert_allclose(logits.numpy(), mean @ weight.T + bias, atol=1e-5)
    for row in range(len(mask)):
        own = {name: tensor[row : row + 1, : mask[row].sum()] for name, tensor in inputs.items() if name != "labels"}
        with torch.no_grad():
            torch.testing.assert_close(model(**own).logits[0], logits[row], atol=1e-5, rtol=1e-5)


def test_gradients_of_the_mean_are_those_of_its_formula():
    hidden = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    mean_of_tokens(hidden, mask).sum().backward()
    expected = torch.tensor([[1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]).double()[..., None].expand(2, 3, 4)
    torch.testing.assert_close(hidden.grad, expected)


def test_the_mean_of_half_precision_is_taken_in_float32():
    hidden = (1 + torch.rand(1, 500, 3, generator=torch.Generator().manual_seed(0))).bfloat16()
    expected = hidden.double().mean(dim=1).float()
    torch.testing.assert_close(mean_of_tokens(hidden, torch.ones(1, 500)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("quantized", ["int8", "int4"])
def test_a_quantised_one_is_exported_as_it_was_trained(quantized, tmp_path, tokenizer):
    model = quantize(
        pooled(), QuantizationConfig(weights=quantized, embeddings=quantized), [batch(seed=i) for i in range(4)]
    )
    export = export_onnx(model.eval(), tokenizer, tmp_path / "out", texts=TEXTS)
    assert (export.int8 if quantized == "int8" else export.int4) is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_saved_and_loaded_and_is_its_own_student(family, tmp_path):
    model = pooled(family)
    model.save_pretrained(tmp_path)
    loaded = load_pruned(tmp_path)
    assert type(loaded) is type(model) is model_class(CLASSIFIER, loaded.config)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch()).logits, model(**batch()).logits)
    assert auto_class_of(loaded) is CLASSIFIER
    student = create_student(loaded, num_hidden_layers=3)
    with torch.no_grad():
        torch.testing.assert_close(student.eval()(**batch()).logits, model(**batch()).logits)
    assert type(create_student(loaded, num_hidden_layers=1, head="cls")) is type(tiny(family))


def test_a_pruned_one_loads_too(tmp_path):
    model = pooled()
    remove(model, Selection([[0, 1], [3], [1, 2, 3]], [range(24), range(64), range(40)]))
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(load_pruned(tmp_path)(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_graph_gives_plain_logits(family, tmp_path, tokenizer):
    model = pooled(family)
    export_onnx(model, tokenizer, tmp_path / "out", texts=TEXTS)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "onnx" / "model.onnx")
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    names = [node.name for node in session.get_inputs()]
    [logits] = session.run(None, {name: encoded[name].numpy() for name in names})
    taken = {name: tensor for name, tensor in encoded.items() if name in forward_names(type(model))}
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(**taken).logits.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("modes", "pooling"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode": "lasttoken"}, None),
    ],
)
def test_a_sentence_encoder_is_read_by_its_own_pooling(modes, pooling, tmp_path):
    tiny().base_model.save_pretrained(tmp_path)
    assert sentence_pooling(str(beside(tmp_path, **modes))) == pooling
    named = type(load_pruned(tmp_path, num_labels=3)).__name__
    assert named == (
        "BertMeanPooledForSequenceClassification" if pooling == "mean" else "BertForSequenceClassification"
    )


def test_whoever_says_what_the_head_reads_is_heeded(tmp_path):
    tiny().base_model.save_pretrained(tmp_path)
    beside(tmp_path, pooling_mode="mean")
    assert type(load_pruned(tmp_path, classifier_pooling="cls")).__name__ == "BertForSequenceClassification"
    assert type(load_pruned(tmp_path, AutoModel)).__name__ == "BertModel"


def test_a_classifier_beside_the_modules_stays_what_it_is(tmp_path):
    tiny().save_pretrained(tmp_path)
    beside(tmp_path, pooling_mode="mean")
    assert type(load_pruned(tmp_path)).__name__ == "BertForSequenceClassification"


def test_modernbert_has_the_field_and_the_class_itself():
    config = ModernBertConfig()
    config.classifier_pooling = "mean"
    assert model_class(CLASSIFIER, config).__name__ == "ModernBertForSequenceClassification"
    assert model_class(CLASSIFIER, BertConfig()).__name__ == "BertForSequenceClassification"


def test_plain_transformers_is_told_not_to_load_it_and_a_pipeline_takes_it(tmp_path, tokenizer):
    model = pooled()
    assert plain_releases(model.config) == ()
    model.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=load_pruned(tmp_path), tokenizer=tokenizer, device="cpu")
    [found] = classify("where is my card")
    with torch.no_grad():
        logits = model(**tokenizer("where is my card", return_tensors="pt")).logits[0]
    assert found["score"] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-5)


def test_a_head_for_tokens_reads_no_pooling_whatever_the_configuration_says(tmp_path):
    pooled().save_pretrained(tmp_path / "classifier")
    tagger = load_pruned(tmp_path / "classifier", AutoModelForTokenClassification, ignore_mismatched_sizes=True)
    assert type(tagger).__name__ == "BertForTokenClassification"
    tagger.save_pretrained(tmp_path / "tagger")
    assert plain_releases(AutoConfig.from_pretrained(tmp_path / "tagger")) == (4, 5)
    assert plain_releases(AutoConfig.from_pretrained(tmp_path / "classifier")) == ()
    again = AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger")
    torch.testing.assert_close(again.classifier.weight, tagger.classifier.weight)
