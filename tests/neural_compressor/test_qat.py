import copy
import logging
import sys

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, load_model
from torch import nn
from torch.ao.nn.qat import Linear as QatLinear
from torch.ao.quantization import FakeQuantizeBase
from transformers import TrainerControl, TrainerState, TrainingArguments

from edgemin_hf import (
    DistillationTrainer,
    PruningConfig,
    QuantizationConfig,
    TaskDistillationConfig,
    create_student,
    export_onnx,
)
from edgemin_hf.modeling.encoder import Encoder
from edgemin_hf.modeling.loading import load_pruned
from edgemin_hf.neural_compressor.qat import IncLinear, finish_inc, own_settings, prepare_inc
from edgemin_hf.quantization.integer import IntegerLinear, integer_copy
from edgemin_hf.quantization.native import (
    FakeQuantEmbedding,
    FakeQuantLinear,
    calibrate,
    fake_quantized_linears,
    input_grid,
    plain_state_dict,
    prepare_qat,
)
from edgemin_hf.quantization.range_training import RangeFreezer
from tests.helpers.models import FAMILIES, batch, tiny

neural_compressor = pytest.importorskip("neural_compressor")
inc_training = pytest.importorskip("neural_compressor.training")
pytestmark = pytest.mark.long
FP32 = {"weight": {"dtype": ["fp32"]}, "activation": {"dtype": ["fp32"]}}
WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def inc_config(**settings):
    return neural_compressor.QuantizationAwareTrainingConfig(**settings)


def trained(family="bert", tokenizer=None, **settings):
    """A model on INC's grids, after calibration and some steps that moved its weights past them."""
    model = tiny(family)
    prepare_inc(model, QuantizationConfig(provider="inc", **settings))
    batches = [batch(seed=seed) for seed in range(3)]
    if tokenizer is not None:
        texts = ["where is my card", "the money is late", "please send the new card to my old"]
        batches.append(dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)))
    calibrate(model, batches, lambda inputs: model(**inputs))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for inputs in batches:
        optimizer.zero_grad()
        model(**inputs).logits.square().mean().backward()
        optimizer.step()
    return model.eval()


def make(folder, tokenizer, config, model=None, **arguments):
    rows = batch([3 + (5 * row) % 7 for row in range(16)], seed=4)
    data = Dataset.from_dict({**{name: rows[name].tolist() for name in rows}, "labels": [i % 3 for i in range(16)]})
    pruning = arguments.pop("pruning_config", None)
    defaults = {"per_device_train_batch_size": 4, "max_steps": 8, "learning_rate": 1e-3, "seed": 3, "report_to": []}
    defaults |= {"save_strategy": "steps", "save_steps": 3, "use_cpu": True, "disable_tqdm": True}
    return DistillationTrainer(
        model or create_student(tiny(), 2), tiny(), TrainingArguments(str(folder), **{**defaults, **arguments}),
        distillation_config=TaskDistillationConfig(), quantization_config=config, pruning_config=pruning,
        train_dataset=data, eval_dataset=data, processing_class=tokenizer,
    )  # fmt: skip


def swapped_by_inc(model):
    """The model as INC's own module swap leaves it, its outputs not quantised."""
    fallback = dict.fromkeys(("Embedding", "LayerNorm", "Dropout"), FP32)
    manager = inc_training.prepare_compression(model, inc_config(op_type_dict=fallback))
    manager.callbacks.on_train_begin()
    found = 0
    for graph in [module for module in manager.model.model.modules() if isinstance(module, torch.fx.GraphModule)]:
        modules = dict(graph.named_modules())
        for node in graph.graph.nodes:
            after = [user for user in node.users if isinstance(modules.get(user.target), FakeQuantizeBase)]
            if node.op == "call_module" and isinstance(modules.get(node.target), QatLinear):
                for user in after:
                    setattr(graph, user.target, nn.Identity())
                    found += 1
    assert found == 3 * 6 + 2
    return manager.model.model


def test_it_computes_what_incs_own_swap_computes(monkeypatch):
    # INC's own inputs have 7 bits where the processor at hand lacks VNNI; ours have 8 everywhere.
    monkeypatch.setattr("neural_compressor.adaptor.pytorch.REDUCE_RANGE", False)
    theirs = swapped_by_inc(tiny(**WITHOUT_DROPOUT))
    ours = tiny(**WITHOUT_DROPOUT)
    prepare_inc(ours, QuantizationConfig(provider="inc", embeddings="fp32", reduce_range=False))
    for model in (ours, theirs):
        model.train()
    for step in range(4):
        logits, expected = (model(**batch(seed=step)).logits for model in (ours, theirs))
        assert torch.equal(logits, expected)
        with torch.no_grad():
            for model in (ours, theirs):
                for parameter in model.parameters():
                    parameter.mul_(1.2)  # past the average of its extremes: some weights are clipped
    theirs.apply(torch.ao.quantization.disable_observer)
    with torch.no_grad():
        expected = theirs.eval()(**batch(seed=9)).logits
        assert torch.equal(ours.eval()(**batch(seed=9)).logits, expected)
        finish_inc(ours)
        torch.testing.assert_close(ours(**batch(seed=9)).logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_finished_it_is_what_native_training_leaves(family, tmp_path):
    model = tiny(family)
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    model = trained(family)
    linears = [linear for _, _, linear in Encoder(model).linears()]
    assert linears
    assert all(type(linear) is IncLinear for linear in linears)
    assert parameters.keys() == dict(model.named_parameters()).keys()
    for linear in linears:
        scale, zero_point = input_grid(linear.input_low, linear.input_high)
        torch.testing.assert_close(scale, linear.input_quantizer.scale.squeeze(), rtol=2e-7, atol=0)
        assert zero_point == linear.input_quantizer.zero_point.squeeze()
        assert (linear.input_quantizer.quant_min, linear.input_quantizer.quant_max) == (0, 255)
    with torch.no_grad():
        expected = model(**batch(seed=9)).logits
        finish_inc(model)
        assert not any(isinstance(module, FakeQuantizeBase | torch.fx.GraphModule) for module in model.modules())
        assert {type(linear) for _, _, linear in Encoder(model).linears()} == {FakeQuantLinear}
        torch.testing.assert_close(model(**batch(seed=9)).logits, expected, rtol=1e-4, atol=1e-4)
        native = tiny(family, seed=8)
        native = tiny(family, seed=8)
        prepare_qat(native, QuantizationConfig())
        assert set(native.state_dict()) == {name for name in model.state_dict() if not name.endswith("weight_scale")}
        model.save_pretrained(tmp_path)
        load_model(native, tmp_path / "model.safetensors")
        assert torch.equal(native.eval()(**batch(seed=9)).logits, model(**batch(seed=9)).logits)
    assert plain_state_dict(model).keys() == tiny(family).state_dict().keys()


@pytest.mark.long
def test_the_exported_graph_holds_incs_weights_and_computes_the_same(tmp_path, tokenizer):
    model = trained(tokenizer=tokenizer, reduce_range=False)
    query = model.bert.encoder.layer[0].attention.self.query
    scale = query.weight_quantizer.scale.numpy().astype(np.float64)[:, None]
    weight = np.clip(np.rint(query.weight.detach().numpy() / scale), -128, 127)
    assert (weight == -128).any(), "INC uses the whole range of int8"
    finish_inc(model)
    made = export_onnx(model, tokenizer, tmp_path / "out")
    assert made.int8.error <= made.int8.limit
    graph = onnx.load(made.folder / "onnx/model_quantized.onnx").graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (found,) = [value for name, value in stored.items() if name.endswith("layer.0.attention.self.query.weight")]
    assert found.dtype == np.int8
    assert (weight != found.T).sum() <= 1, "float32 may round one of 1024 otherwise"


@pytest.mark.long
@pytest.mark.parametrize("checkpoint", [3, 6])
def test_resumed_equals_uninterrupted(tmp_path, tokenizer, checkpoint):
    config = QuantizationConfig(provider="inc", calibration_examples=8, range_momentum=0.3)
    whole = make(tmp_path / "whole", tokenizer, config, eval_strategy="steps", eval_steps=2)
    whole.train()
    resumed = make(tmp_path / "resumed", tokenizer, config, eval_strategy="steps", eval_steps=2)
    folder = tmp_path / "whole" / f"checkpoint-{checkpoint}"
    resumed.train(resume_from_checkpoint=str(folder))
    ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
    assert not any(linear.observing for linear in fake_quantized_linears(resumed.model))
    saved = load_file(folder / "model.safetensors")
    assert {name for name, _ in whole.model.named_parameters()} <= saved.keys(), "names of the plain model"
    with pytest.raises(ValueError, match=r"no state of INC for bert\.encoder.*query; allowed"):
        make(tmp_path, tokenizer, config).model.load_state_dict(whole.model.state_dict())


@pytest.mark.long
def test_what_the_trainer_saves_loads_as_after_native_training(tmp_path, tokenizer):
    trainer = make(tmp_path / "work", tokenizer, inc_config(op_type_dict={"Embedding": FP32}), save_strategy="no")
    assert not any(isinstance(module, FakeQuantEmbedding) for module in trainer.model.modules())
    before = trainer.evaluate()["eval_loss"]
    assert np.isfinite(before)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = load_pruned(tmp_path / "model")
    prepare_qat(loaded, QuantizationConfig(embeddings="fp32"))
    load_model(loaded, tmp_path / "model/model.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch()).logits, trainer.model.eval()(**batch()).logits)
    from optimum.intel.neural_compressor import INCConfig

    assert INCConfig.from_pretrained(tmp_path / "model").quantization["is_static"] is True


@pytest.mark.long
def test_a_student_that_inc_quantised_can_be_pruned_afterwards(tmp_path, tokenizer):
    model = trained()
    finish_inc(model)
    config = QuantizationConfig(provider="inc")
    trainer = make(tmp_path, tokenizer, config, model, pruning_config=PruningConfig(0.5, 0.5), max_steps=1)
    trainer.train()
    for block in Encoder(trainer.model).blocks:
        assert block.q.weight_scale.shape == (16, 1)
        assert block.ffn_in.weight_scale.shape == (32, 1)


def grids(model):
    linears = fake_quantized_linears(model)
    return [torch.cat([m.input_low[None], m.input_high[None], m.weight_scale.flatten()]).clone() for m in linears]


@pytest.mark.long
def test_observers_move_in_training_only_and_not_in_its_last_share():
    model = trained()
    freezer = RangeFreezer(QuantizationConfig(frozen_share=0.33))
    state = TrainerState(max_steps=9)
    arguments = TrainingArguments("unused", report_to=[], use_cpu=True)
    for step, moves in ((5, True), (7, False), (8, False), (0, True)):
        state.global_step = step
        freezer.on_step_begin(arguments, state, TrainerControl(), model=model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        before = grids(model)
        model.eval()(**batch(seed=20))
        assert all(map(torch.equal, grids(model), before)), "evaluation moves nothing"
        model.train()(**batch(seed=20))
        changed = [not torch.equal(now, then) for now, then in zip(grids(model), before, strict=True)]
        assert all(changed) if moves else not any(changed)


def test_the_grid_has_eight_bits_wherever_it_is_trained_and_chance_stays(monkeypatch):
    monkeypatch.setattr("neural_compressor.adaptor.pytorch.REDUCE_RANGE", True)
    model, state = tiny(), torch.random.get_rng_state()
    prepare_inc(model, QuantizationConfig(provider="inc", range_momentum=0.2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for linear in fake_quantized_linears(model):
        observer = linear.input_quantizer.activation_post_process
        assert (observer.quant_min, observer.quant_max, observer.averaging_constant) == (0, 255, 0.2)
        assert linear.weight_quantizer.activation_post_process.averaging_constant == 0.01
    assert logging.getLogger("neural_compressor").level >= logging.WARNING
    again = copy.deepcopy(model.state_dict())
    prepare_inc(model, QuantizationConfig(provider="inc"))
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_what_inc_leaves_in_full_precision_is_named():
    with pytest.raises(ValueError, match=r"bert\.pooler\.dense of model type 'bert': not quantised by Neural"):
        prepare_inc(tiny(), inc_config(op_name_dict={"bert.pooler.dense": FP32}))
    model = tiny()
    model.classifier = type("Special", (nn.Linear,), {})(32, 3)
    with pytest.raises(ValueError, match=r"^classifier of model type 'bert'"):
        prepare_inc(model, QuantizationConfig(provider="inc"))
    assert type(model.bert.pooler.dense) is nn.Linear, "nothing is changed"


def test_what_inc_can_not_trace_is_named(monkeypatch):
    def fail(*_):
        raise RuntimeError("symbolically traced")

    monkeypatch.setattr("neural_compressor.training.prepare_compression", fail)
    with pytest.raises(ValueError, match=r"model type 'bert': Neural Compressor can't trace it \(symbolically traced"):
        prepare_inc(tiny(), QuantizationConfig(provider="inc"))


def test_impossible_settings(tmp_path, tokenizer):
    config = QuantizationConfig(provider="inc")
    with pytest.raises(ValueError, match="provider: intel; allowed: native, inc"):
        QuantizationConfig(provider="intel")
    with pytest.raises(ValueError, match="reduce_range: True; allowed"):
        own_settings(inc_config(reduce_range=True))
    with pytest.raises(ValueError, match="quantization_config: a dict; allowed"):
        own_settings({})
    asked = {None: True, False: False}
    assert {given: own_settings(inc_config(reduce_range=given)).reduce_range for given in asked} == asked
    with pytest.raises(ValueError, match="bf16: True; allowed: False"):
        make(tmp_path, tokenizer, config, bf16=True)
    with pytest.raises(ValueError, match="pruning_config: beside provider inc"):
        make(tmp_path, tokenizer, config, pruning_config=PruningConfig(0.5, 0.5))
    with pytest.raises(ValueError, match=r"model: of torch\.bfloat16; allowed"):
        prepare_inc(tiny().bfloat16(), config)
    quantized = tiny()
    prepare_qat(quantized, QuantizationConfig())
    with pytest.raises(ValueError, match="model: quantised already"):
        prepare_inc(quantized, config)
    fresh = tiny()
    prepare_inc(fresh, config)
    with pytest.raises(ValueError, match="has seen no input; allowed: after training"):
        finish_inc(fresh)


def test_without_inc_the_provider_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "neural_compressor", None)
    with pytest.raises(ValueError, match=r"provider: inc without .*edgemin-hf\[inc\]"):
        prepare_inc(tiny(), QuantizationConfig(provider="inc"))


def test_overrides_leave_layers_plain_and_reduced_range_reaches_the_weights():
    model = trained(overrides={"classifier": "fp32", "*.word_embeddings": "int4"}, reduce_range=True)
    assert type(model.classifier) is nn.Linear
    assert model.bert.embeddings.word_embeddings.group_size == 32
    expected = model(**batch(seed=9)).logits
    finish_inc(model)
    torch.testing.assert_close(model(**batch(seed=9)).logits, expected, rtol=1e-4, atol=1e-4)
    integer = integer_copy(model)
    layers = [module for module in integer.modules() if isinstance(module, IntegerLinear)]
    assert len(layers) == 3 * 6 + 1
    assert {layer.weight.int().abs().max().item() for layer in layers} == {64}
    torch.testing.assert_close(integer(**batch(seed=9)).logits, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"overrides: int4 for classifier .*; allowed: int8"):
        prepare_inc(tiny(), QuantizationConfig(provider="inc", overrides={"classifier": "int4"}))
