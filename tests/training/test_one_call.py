import pytest
import torch
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from edgemin_hf import (
    EdgeminConfig,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    export_onnx,
    load_quantized,
    prune,
    quantize,
)
from tests.helpers.models import batch, tiny
from tests.helpers.training import assert_same, dataset, make

LABELS_ALONE = TaskDistillationConfig(soft_weight=0.0, hard_weight=1.0)


def labelled(seed=0, rows=3):
    return {**batch(seed=seed), "labels": torch.arange(rows) % 3}


def trainer_and_batches(tmp_path, tokenizer, **asked):
    """A trainer whose batches come in the order of the data, and the same batches."""
    trainer = make(tmp_path, tokenizer, tiny(), config=LABELS_ALONE, **asked)
    loader = DataLoader(dataset(), batch_size=4, collate_fn=DataCollatorWithPadding(tokenizer))
    trainer.get_train_dataloader = lambda: loader
    return trainer, loader


@pytest.mark.parametrize(
    "settings",
    [
        {"head_sparsity": 0.5, "ffn_sparsity": 0.5},
        {"layer_sparsity": 0.4, "head_sparsity": 0.5, "saliency": "fisher", "tune_masks": True},
        {"target_parameters": 20_000, "saliency": "taylor_weights", "scope": "model"},
        {"ffn_sparsity": 0.5, "saliency": "random", "pruning_seed": 4},
        {"head_sparsity": 0.5, "ffn_sparsity": 0.5, "saliency": "snip_momentum"},
    ],
    ids=["taylor", "fisher", "budget", "random", "inc"],
)
def test_prune_leaves_what_the_trainer_leaves(settings, tmp_path, tokenizer):
    config = PruningConfig(**settings, saliency_examples=10)
    if config.uses_inc:
        pytest.importorskip("neural_compressor")
    trainer, loader = trainer_and_batches(tmp_path, tokenizer, pruning_config=config)
    trainer.prepare()
    model = tiny()
    assert prune(model, config, loader) is model
    assert model.num_parameters() < tiny().num_parameters()
    assert_same(dict(model.state_dict()), dict(trainer.model.state_dict()))
    theirs = trainer.model.config.to_dict()
    theirs |= {name: value for name, value in model.config.to_dict().items() if name == "use_cache"}  # Trainer's own
    assert model.config.to_dict() == theirs


def test_prune_reads_no_more_than_it_needs():
    def batches():
        yield labelled()
        raise AssertionError("read on")

    prune(tiny(), PruningConfig(ffn_sparsity=0.5, saliency_examples=3), batches())


def test_prune_refuses_what_one_call_cannot_do():
    with pytest.raises(ValueError, match=r"schedule: cubic, .*expected one_shot, or DistillationTrainer"):
        prune(tiny(), PruningConfig(0.5, schedule="cubic"), [labelled()])
    with pytest.raises(ValueError, match="config: a dict; allowed: PruningConfig"):
        prune(tiny(), {"head_sparsity": 0.5}, [labelled()])
    with pytest.raises(ValueError, match="config: a PruningConfig; allowed: QuantizationConfig"):
        quantize(tiny(), PruningConfig(0.5), [labelled()])
    with pytest.raises(ValueError, match=r"model: frozen, .*expected after model.requires_grad_"):
        prune(tiny().requires_grad_(False), PruningConfig(0.5), [labelled()])
    with pytest.raises(ValueError, match="dataloader: a batch without labels"):
        prune(tiny(), PruningConfig(0.5), [batch()])
    with pytest.raises(ValueError, match="dataloader: no batches"):
        prune(tiny(), PruningConfig(0.5), [])
    with pytest.raises(ValueError, match="layer_sparsity"):
        prune(tiny("albert"), PruningConfig(layer_sparsity=0.5), [labelled()])


@pytest.mark.parametrize("config", [QuantizationConfig(calibration_examples=10), QuantizationConfig(weights="int4")])
def test_quantize_leaves_what_the_trainer_leaves(config, tmp_path, tokenizer):
    trainer, loader = trainer_and_batches(tmp_path, tokenizer, quantization_config=config)
    trainer.prepare()
    model = tiny()
    assert quantize(model, config, loader) is model
    assert_same(dict(model.state_dict()), dict(trainer.model.state_dict()))
    assert [type(module) for module in model.modules()] == [type(module) for module in trainer.model.modules()]


def test_a_training_that_follows_tells_of_both_calls(tmp_path, tokenizer):
    pruning, grids = PruningConfig(0.5), QuantizationConfig(weights="int4")
    model = quantize(prune(tiny(), pruning, [labelled()]), grids)
    make(tmp_path / "work", tokenizer, model, config=LABELS_ALONE).save_model(tmp_path)
    first, second, third = EdgeminConfig.from_pretrained(tmp_path).trainings
    assert first == {"distillation": [], "pruning": pruning.to_dict(), "quantization": None}
    assert second == {"distillation": [], "pruning": None, "quantization": grids.to_dict()}
    assert third["distillation"][0]["method"] == "task"
    assert_same(dict(load_quantized(tmp_path).state_dict()), dict(model.state_dict()))


@pytest.mark.long
def test_what_was_pruned_and_quantised_exports(tmp_path, tokenizer):
    model = prune(tiny(), PruningConfig(0.5, 0.5), [labelled()])
    export_onnx(quantize(model, dataloader=[labelled(seed) for seed in range(8)]), tokenizer, tmp_path)
    assert (tmp_path / "onnx" / "model_quantized.onnx").is_file()


@pytest.mark.long
def test_quantize_by_neural_compressor_is_its_fit():
    pytest.importorskip("neural_compressor")
    from edgemin_hf.neural_compressor import quantize_by_inc

    config, batches = QuantizationConfig(provider="inc"), [batch(seed=seed) for seed in range(2)]
    expected = tiny()
    quantize_by_inc(expected, config, batches)
    assert_same(dict(quantize(tiny(), config, batches).state_dict()), dict(expected.state_dict()))


@pytest.mark.parametrize("provider", ["native", "inc"])
def test_quantize_refuses_to_guess_ranges(provider):
    with pytest.raises(ValueError, match="dataloader: no batches"):
        quantize(tiny(), QuantizationConfig(provider=provider))
    quantize(tiny(), QuantizationConfig(weights="int4"))  # has none
