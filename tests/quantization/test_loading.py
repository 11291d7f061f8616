import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from edgemin_hf import (
    EdgeminConfig,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    export_onnx,
    load_pruned,
    load_quantized,
    quantize,
)
from edgemin_hf.quantization import FakeInt4Linear, FakeQuantLinear
from tests.helpers.models import batch, tiny
from tests.helpers.training import RELATIONS, assert_same, make, weights

MIXED = {"classifier": "fp32", "*.2.*": "int4"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("bert", QuantizationConfig()),
        ("bert", QuantizationConfig(overrides=MIXED, reduce_range=False, ranges="learned")),
        ("bert", QuantizationConfig(weights="int4", embeddings="int4")),
        ("modernbert", QuantizationConfig(embeddings="fp32")),
        ("bert", QuantizationConfig(provider="inc")),
    ],
    ids=["int8", "mixed", "int4", "modernbert", "inc"],
)
def test_it_predicts_what_the_trained_model_predicts(family, config, tmp_path, tokenizer, capfd):
    if config.provider == "inc":
        pytest.importorskip("neural_compressor")
    asked = {"quantization_config": config, "max_steps": 3}
    if config.provider == "native":
        layers = 0.4 if config.overrides else 0.0  # names of layers are those before some went
        asked["pruning_config"] = PruningConfig(head_sparsity=0.5, ffn_sparsity=0.5, layer_sparsity=layers)
    trainer = make(tmp_path / "work", tokenizer, tiny(family), tiny(family), TaskDistillationConfig(), **asked)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    capfd.readouterr()
    loaded, trained = load_quantized(tmp_path / "saved"), trainer.model.eval()
    assert capfd.readouterr().err == ""
    assert not loaded.training
    with torch.no_grad():
        expected = trained(**batch(seed=9)).logits
        assert torch.equal(loaded(**batch(seed=9)).logits, expected)
        assert not torch.equal(load_pruned(tmp_path / "saved")(**batch(seed=9)).logits, expected)
    assert [type(module) for module in loaded.modules()] == [type(module) for module in trained.modules()]


@pytest.mark.parametrize("provider", ["native", "inc"])
def test_a_table_tied_to_a_decoder_comes_back_on_its_grid(provider, tmp_path, tokenizer):
    config = QuantizationConfig(provider=provider)
    if provider == "inc":
        pytest.importorskip("neural_compressor")
    made = quantize(tiny(head=AutoModelForMaskedLM), config, [batch()])
    made.save_pretrained(tmp_path)
    training = {"distillation": [], "pruning": None, "quantization": config.to_dict()}
    EdgeminConfig(trainings=[training]).save_pretrained(tmp_path)
    loaded = load_quantized(tmp_path, AutoModelForMaskedLM)
    with torch.no_grad():
        assert torch.equal(loaded(**batch(seed=9)).logits, made.eval()(**batch(seed=9)).logits)


@pytest.mark.long
def test_what_was_loaded_exports_and_trains_on(tmp_path, tokenizer):
    config = QuantizationConfig(overrides={"*.embeddings.*": "fp32"})
    trainer = make(tmp_path / "work", tokenizer, tiny(), tiny(), TaskDistillationConfig(), quantization_config=config)
    trainer.train()
    trainer.save_model(tmp_path / "saved")
    loaded = load_quantized(tmp_path / "saved")
    export_onnx(loaded, tokenizer, tmp_path / "edge")
    assert (tmp_path / "edge" / "onnx" / "model_quantized.onnx").is_file()
    ranges = {name: value.clone() for name, value in loaded.state_dict().items() if name.endswith("input_low")}
    again = make(tmp_path / "work", tokenizer, loaded, tiny(), TaskDistillationConfig(), quantization_config=config)
    again.prepare()  # does not calibrate anew
    assert_same({name: loaded.state_dict()[name] for name in ranges}, ranges)
    before = weights(again)["classifier.weight"]
    again.train()
    assert not torch.equal(weights(again)["classifier.weight"], before)
    assert isinstance(loaded.classifier, FakeQuantLinear)


def test_another_head_is_loaded_by_its_class(tmp_path, tokenizer):
    from transformers import AutoModel

    student = tiny(head=AutoModel)
    config = QuantizationConfig(weights="int4")
    trainer = make(tmp_path / "work", tokenizer, student, tiny(head=AutoModel), RELATIONS, quantization_config=config)
    trainer.save_model(tmp_path / "saved")
    loaded = load_quantized(tmp_path / "saved", AutoModel)
    assert type(loaded) is type(student)
    assert isinstance(loaded.encoder.layer[0].output.dense, FakeInt4Linear)


def test_a_folder_without_a_quantised_model_is_refused(tmp_path, tokenizer):
    tiny().save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"plain: expected edgemin_config\.json"):
        load_quantized(tmp_path / "plain")
    make(tmp_path / "work", tokenizer, tiny()).save_model(tmp_path / "trained")
    with pytest.raises(ValueError, match=r"trained: expected a quantised model, but its edgemin_config\.json"):
        load_quantized(tmp_path / "trained")
    make(tmp_path / "work", tokenizer, tiny(), quantization_config=QuantizationConfig()).save_model(tmp_path / "int8")
    file = tmp_path / "int8" / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "input_" not in name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match="int8: expected the weights of a quantised model"):
        load_quantized(tmp_path / "int8")
