import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForTokenClassification,
)

from edgemin_hf import load_pruned
from edgemin_hf.data import load_masked_lm
from edgemin_hf.modeling.loading import check_checkpoint
from edgemin_hf.quantization.integer import plain_copy
from edgemin_hf.utils.weight_files import WeightsError
from tests.helpers.models import FAMILIES, tiny


def saved(folder, model, *, rename=lambda name: name, keep=lambda name: True, **config):
    """Save a model, then write other names into its file, and other fields into its configuration."""
    model.save_pretrained(folder)
    tensors = {rename(name): value for name, value in load_file(folder / "model.safetensors").items() if keep(name)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def refused(folder, told, auto_class=AutoModelForSequenceClassification, **kwargs):
    """The same line comes without weights, and when they are loaded."""
    for look in (check_checkpoint, load_pruned):
        with pytest.raises(WeightsError, match=told) as error:
            look(folder, auto_class, **kwargs)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_of_another_shape_than_its_config_is_refused(family, tmp_path):
    field = "n_layers" if family == "distilbert" else "num_hidden_layers"
    width = "hidden_dim" if family == "distilbert" else "intermediate_size"
    model = tiny(family)
    saved(tmp_path / "narrow", model, **{width: 48})
    refused(tmp_path / "narrow", r"another shape than its config: \S+ is \(\d+.*\), by its config \(\d+")
    refused(tmp_path / "narrow", "another shape than its config", AutoModel, ignore_mismatched_sizes=True)
    saved(tmp_path / "vocabulary", model, vocab_size=40)
    refused(tmp_path / "vocabulary", r"embeddings\.\w+\.weight is \(\d+, \d+\), by its config \(40, ")
    if family != "albert":  # its layers are one
        deeper = {"layer_types": None} if hasattr(model.config, "layer_types") else {}
        saved(tmp_path / "deep", model, **{field: 5}, **deeper)
        refused(tmp_path / "deep", "lacks weights of a .* encoder: ")
        saved(tmp_path / "shallow", model, **{field: 2}, **deeper)
        refused(tmp_path / "shallow", "layers that its config has none of: .*; its config says 2")


@pytest.mark.parametrize("auto_class", [AutoModelForSequenceClassification, AutoModel])
def test_names_of_nobody_we_know_are_refused(tmp_path, auto_class):
    model = tiny()
    saved(tmp_path / "prefix", model, rename=lambda name: f"module.{name}")
    refused(tmp_path / "prefix", r"lacks weights of a bert's encoder: .*; it holds module\.", auto_class)
    saved(tmp_path / "other", model, rename=lambda name: name.replace("attention.self.query", "attn.q"))
    refused(tmp_path / "other", r"attention\.self\.query", auto_class)
    saved(tmp_path / "half", model, keep=lambda name: "layer.2" not in name)
    refused(tmp_path / "half", r"lacks .*encoder\.layer\.2\..* and \d+ more", auto_class)
    saved(tmp_path / "family", tiny("distilbert"), model_type="bert", architectures=["BertForSequenceClassification"])
    refused(tmp_path / "family", "encoder|can't be loaded: .* corrupted", auto_class)


def test_a_base_model_and_one_of_pre_training_get_a_new_head_that_is_told(tmp_path, caplog):
    words = tiny(head=AutoModelForMaskedLM)
    words.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "edgemin_hf"):
        model = load_pruned(tmp_path, num_labels=2)
    assert torch.equal(model.bert.encoder.layer[1].output.dense.weight, words.bert.encoder.layer[1].output.dense.weight)
    assert "bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias and 1 more: new" in caplog.text
    with pytest.raises(ValueError, match=r"lacks cls\.predictions"):
        load_masked_lm(saved(tmp_path / "classifier", tiny()))


def test_a_head_of_other_labels_is_replaced_where_that_is_asked_for(tmp_path, caplog):
    tiny(num_labels=3).save_pretrained(tmp_path)
    theirs = tiny(num_labels=3).classifier.weight
    refused(tmp_path, "a head of another shape than its config: classifier.bias", num_labels=2)
    names = {"a": 0, "b": 1, "c": 2}
    ours = {"label2id": names, "id2label": {index: name for name, index in names.items()}, "num_labels": 3}
    # Nobody knows what LABEL_0 was: it may be ours.
    assert torch.equal(load_pruned(tmp_path, ignore_mismatched_sizes=True, **ours).classifier.weight, theirs)
    named = saved(
        tmp_path / "named", tiny(), id2label={"0": "x", "1": "y", "2": "z"}, label2id={"x": 0, "y": 1, "z": 2}
    )
    with caplog.at_level(logging.WARNING, "edgemin_hf"):
        model = load_pruned(named, ignore_mismatched_sizes=True, **ours)
    assert not torch.equal(model.classifier.weight, theirs)
    assert model.classifier.weight.abs().max() < 0.2
    assert "its head is of other labels or another task, and is replaced: classifier" in caplog.text
    assert torch.equal(load_pruned(named).classifier.weight, theirs)


def test_a_head_of_another_task_is_never_taken(tmp_path, caplog):
    model = BertForTokenClassification(tiny(num_labels=3).config)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "edgemin_hf"):
        found = load_pruned(tmp_path, AutoModelForSequenceClassification)  # by name and shape it would fit
    assert not torch.equal(found.classifier.weight, model.classifier.weight)
    assert "another task, and is replaced: classifier" in caplog.text
    assert load_pruned(tmp_path, AutoModelForSequenceClassification, num_labels=5).classifier.out_features == 5
    same = load_pruned(tmp_path, AutoModelForTokenClassification)
    assert torch.equal(same.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_become_float32_whatever_the_checkpoints_dtype(tmp_path, dtype):
    tiny().to(dtype).save_pretrained(tmp_path / "model")
    tiny(head=AutoModelForMaskedLM).to(dtype).save_pretrained(tmp_path / "words")
    found = [
        load_pruned(tmp_path / "model"),
        load_masked_lm(tmp_path / "words"),
        load_pruned(tmp_path / "model", AutoModel),
    ]
    for model in [*found, plain_copy(tiny().to(dtype))]:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    found[0].save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again/config.json").read_text()).get("dtype", "float32") == "float32"
    assert load_pruned(tmp_path / "model", dtype=dtype).dtype == dtype
